"""The example service: right answers, bad input, load, clients that leave, and its shutdown, counted from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import pytest
import zarr
from starlette.applications import Starlette

from examples.service import application
from managed_store import ManagedStore
from tests.servers import FolderServer, http_server
from tests.servers._process import REPOSITORY_ROOT

EXPECTED = np.arange(40 * 50 * 60, dtype="f4").reshape(40, 50, 60)
EXPECTED[0, 0, :2] = [np.nan, np.inf]

# Hundreds of requests take their time on a busy machine.
pytestmark = pytest.mark.timeout(400)

# What uvicorn says as a matter of course.
INFO = re.compile(r"INFO: +")


@pytest.fixture(scope="module")
def upstream() -> Iterator[FolderServer]:
    """The server of the data."""
    with http_server(latency=0.01) as server:
        group = zarr.create_group(server.root / "data.zarr", zarr_format=2)  # format 3 knows no words yet
        group.create_array("inner/values", data=EXPECTED, chunks=(4, 50, 60), compressors=None)
        group.create_array("scalar", data=np.array(7, dtype="i8"))
        group.create_array("words", data=np.array(["good", "morning"], dtype="<U7"))
        group.create_array("complex", data=np.ones(3, dtype="c8"))
        group.create_array("large", shape=(2000, 1000), chunks=(100, 1000), dtype="i1", fill_value=1)
        yield server


@pytest.fixture
def own_upstream(upstream: FolderServer) -> Iterator[FolderServer]:
    """The same for one service, which has no connection left when it has ended."""
    with http_server(upstream.root, latency=0.01) as server:
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.fixture(scope="module")
def client(upstream: FolderServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a running service."""
    with service(upstream, tmp_path_factory.mktemp("service")) as running:
        with httpx.Client(base_url=running.url, timeout=60) as client:
            yield client
        assert running.end() == 0
        assert running.said() == []


@asynccontextmanager
async def in_process(application: Starlette) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Any]]]:
    """The application on this loop: a client, and what its lifespan gives to the requests."""
    async with application.router.lifespan_context(application) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await application({**scope, "state": dict(state)}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://service") as client:
            yield client, state


@pytest.mark.parametrize(
    "index",
    ["", "0", "-1", ":", "3:9", "::7", "1:39:6,2", "5,6,7", "3:9,::20,-2:", "30:20", "39:100", " 2 , : , 0:2", "4:4"],
)
def test_slices(client: httpx.Client, index: str) -> None:
    """Bytes and JSON are what numpy selects."""
    selection = eval(f"np.s_[{index}]") if index else np.s_[...]
    expected = EXPECTED[selection]
    answer = client.get("/demo/inner/values", params={"index": index, "format": "bytes"})
    assert (answer.status_code, answer.headers["X-Shape"]) == (200, ",".join(map(str, expected.shape)))
    assert np.frombuffer(answer.content, answer.headers["X-Dtype"]).tobytes() == expected.tobytes()
    answer = client.get("/demo/inner/values", params={"index": index})
    assert answer.status_code == 200
    assert answer.json()["shape"] == list(expected.shape)
    values = np.array(answer.json()["values"], dtype="f4").reshape(expected.shape)
    np.testing.assert_array_equal(values, np.where(np.isfinite(expected), expected, np.nan))


def test_other_types(client: httpx.Client) -> None:
    """A scalar, and words; what JSON has no value for is given as bytes."""
    assert client.get("/demo/scalar").json() == {"shape": [], "dtype": "<i8", "values": 7}
    assert client.get("/demo/scalar?format=bytes").content == np.array(7, dtype="i8").tobytes()
    assert client.get("/demo/words").json()["values"] == ["good", "morning"]
    assert client.get("/demo/complex?format=bytes").content == np.ones(3, dtype="c8").tobytes()


BAD = {
    "/demo/nothing": 404,
    "/nothing/inner/values": 404,
    "/demo/inner": 404,
    "/demo/": 404,
    "/demo/inner/..%2fscalar": 404,
    "/demo/inner/values%3Fx": 404,
    "/demo/zip::http:%2f%2f127.0.0.1": 404,
    "/demo/inner/values?index=40": 400,
    "/demo/inner/values?index=-41": 400,
    "/demo/inner/values?index=0,0,0,0": 400,
    "/demo/inner/values?index=a": 400,
    "/demo/inner/values?index=1:2:3:4": 400,
    "/demo/inner/values?index=::0": 400,
    "/demo/inner/values?index=::-1": 400,
    "/demo/inner/values?index=,": 400,
    "/demo/inner/values?index=" + "9" * 5000: 400,
    "/demo/inner/values?index=%D9%A1": 400,  # a digit, in Arabic
    "/demo/inner/values?format=xml": 400,
    "/demo/scalar?index=0": 400,
    "/demo/complex": 406,
    "/demo/large": 413,
}


@pytest.mark.parametrize("request_", BAD, ids=lambda request: request[:40])
def test_bad_input(client: httpx.Client, request_: str) -> None:
    """Each is told what is wrong, and reaches no data."""
    answer = client.get(request_)
    assert answer.status_code == BAD[request_]
    assert answer.json()["detail"]


async def test_a_closed_pool_is_503(upstream: FolderServer) -> None:
    """Requests that come while the service closes are told to come again."""
    async with in_process(application({"demo": f"{upstream.url}/data.zarr"})) as (client, state):
        assert (await client.get("/demo/scalar")).status_code == 200
        await state["pool"].aclose()
        for request in ("/demo/scalar", "/demo/inner/values?format=bytes"):
            answer = await client.get(request)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


async def test_the_end_of_the_lifespan_closes_everything(own_upstream: FolderServer) -> None:
    """When the service ends, its connections do, while the event loop runs on."""
    async with in_process(application({"demo": f"{own_upstream.url}/data.zarr"})) as (client, state):
        assert (await client.get("/demo/scalar")).status_code == 200
        assert own_upstream.connections() > 0
    assert state["pool"].closed
    assert await asyncio.to_thread(own_upstream.wait_for_connections, 0) == 0


async def test_data_that_cannot_be_reached_is_502() -> None:
    """It is no missing array; and the answer keeps the address to itself."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/data.zarr"
        async with in_process(application({"demo": url})) as (client, _):
            answer = await client.get("/demo/scalar")
    assert answer.status_code == 502
    assert "127.0.0.1" not in answer.text


async def test_the_stores_are_read_only(upstream: FolderServer) -> None:
    """No request can write: the stores refuse it. Nothing is opened before the first request."""
    async with in_process(application({"demo": f"{upstream.url}/data.zarr"})) as (client, state):
        [store] = state["stores"].values()
        assert isinstance(store, ManagedStore)
        assert store.read_only
        assert (await client.get("/")).json()["pool"]["state"] == "new"


# The service as a process of its own


@dataclass
class Service:
    """A running service.

    Attributes
    ----------
    url : str
        Where it is.
    process : subprocess.Popen
        Its process.
    errors : Path
        What it writes to stderr.
    """

    url: str
    process: subprocess.Popen[bytes]
    errors: Path

    def descriptors(self, upstream: FolderServer) -> int:
        """Its open descriptors, but for connections to the server of the data, when no client is there any more."""
        deadline = time.monotonic() + 10
        process = psutil.Process(self.process.pid)
        while any(
            each.laddr.port == int(self.url.rpartition(":")[2]) and each.status != psutil.CONN_LISTEN
            for each in process.net_connections("tcp")
        ):
            assert time.monotonic() < deadline, "clients are still connected"
            time.sleep(0.01)
        upstream.wait_for_connections(len(self._upstream(process, upstream)))
        return process.num_fds() - len(self._upstream(process, upstream))

    def _upstream(self, process: psutil.Process, upstream: FolderServer) -> list[object]:
        return [each for each in process.net_connections("tcp") if each.raddr and each.raddr.port == upstream.port]

    def said(self) -> list[str]:
        """What it has said that is no matter of course."""
        return [line for line in self.errors.read_text().splitlines() if not INFO.match(line)]

    def end(self) -> int:
        """Send SIGTERM, and wait for the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def service(upstream: FolderServer, folder: Path) -> Iterator[Service]:
    errors = folder / "stderr"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "examples/service.py", f"demo={upstream.url}/data.zarr", "--port", "0"],
            cwd=REPOSITORY_ROOT,
            env={"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=file,  # uvicorn's access log
            stderr=file,
        )
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"running on (http://\S+)", errors.read_text())):
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, errors.read_text()
            time.sleep(0.02)
        yield Service(found[1], process, errors)
    finally:
        process.kill()
        process.wait()


async def whole(session: aiohttp.ClientSession, number: int) -> str:
    """One request, and what has become of it."""
    row = number % 32
    params = {"index": f"{row}:{row + 8},0"} if number % 2 else {"index": f"{row}:{row + 8}", "format": "bytes"}
    try:
        async with session.get("/demo/inner/values", params=params) as response:
            body = await response.read()
            if response.status != 200:
                return str(response.status)
    except aiohttp.ClientPayloadError:
        return "cut off"
    except aiohttp.ClientConnectionError:
        return "not connected"
    if number % 2:
        assert json.loads(body)["shape"] == [8, 60]
    else:
        assert body == EXPECTED[row : row + 8].tobytes()
    return "whole"


async def many(url: str, count: int) -> list[str]:
    """Concurrent requests, each on a connection of its own."""
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        return await asyncio.gather(*(whole(session, number) for number in range(count)))


async def leave_in_mid_response(url: str) -> None:
    """Ask for everything, take the beginning, and reset the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1024)
    try:
        writer.write(b"GET /demo/inner/values?format=bytes HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await reader.readline()
        await reader.readexactly(1000)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_flat_under_load(own_upstream: FolderServer, tmp_path: Path) -> None:
    """Hundreds of requests at once, dozens of clients that leave in mid-response, several times over: nothing grows."""

    async def load() -> list[str]:
        outcomes, *_ = await asyncio.gather(
            many(running.url, 300), *(leave_in_mid_response(running.url) for _ in range(40))
        )
        return outcomes

    with service(own_upstream, tmp_path) as running:
        assert asyncio.run(many(running.url, 1)) == ["whole"]
        before = running.descriptors(own_upstream)
        for _ in range(3):
            assert asyncio.run(load()) == ["whole"] * 300
            assert running.descriptors(own_upstream) == before
            assert own_upstream.connections() <= 100  # as many as aiohttp keeps
        assert running.end() == 0
        assert running.said() == []


def test_sigterm_under_load(own_upstream: FolderServer, tmp_path: Path) -> None:
    """What has been begun is answered whole, and nobody else is; all connections to the data are closed."""

    async def load() -> list[str]:
        loading = asyncio.create_task(many(running.url, 200))
        begun = own_upstream.requests()
        while own_upstream.requests() < begun + 300:
            await asyncio.sleep(0.005)
        running.process.send_signal(signal.SIGTERM)
        return await loading

    with service(own_upstream, tmp_path) as running:
        outcomes = asyncio.run(load())
        assert set(outcomes) <= {"whole", "not connected"}
        assert outcomes.count("whole") >= 100
        assert running.process.wait(30) == 0
        assert running.said() == []
