"""A request of the example service, against the same service with a bare FsspecStore that nobody closes.

Each service is a process of its own under uvicorn; a request reads an array's metadata and one chunk of 64 KiB.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import uvicorn
import zarr
from starlette.applications import Starlette
from zarr.storage import FsspecStore

from examples import service
from tests.benchmarks._measuring import Effort, Line, compare
from tests.servers import http_server

REQUESTS = 30
"""In a row, on one connection: one measurement."""


def plain_application(url: str) -> Starlette:
    """The same routes over zarr's own store."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"stores": {"demo": FsspecStore.from_url(url, read_only=True)}}

    return Starlette(routes=service.ROUTES, exception_handlers=service.EXCEPTIONS, lifespan=lifespan)


def serve(kind: str, url: str) -> None:
    application = service.application({"demo": url}) if kind == "managed" else plain_application(url)
    uvicorn.run(application, host="127.0.0.1", port=0, access_log=False, timeout_keep_alive=3600)


@contextmanager
def serving(kind: str, url: str) -> Iterator[http.client.HTTPConnection]:
    """Run a service, and connect to it."""
    command = [sys.executable, "-m", "tests.benchmarks.service", kind, url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"running on http://(\S+)", line) for line in process.stderr)))
        connection = http.client.HTTPConnection(found[1])
        try:
            yield connection
        finally:
            connection.close()
            process.terminate()


def seconds(connection: http.client.HTTPConnection) -> float:
    start = time.perf_counter()
    for _ in range(REQUESTS):
        connection.request("GET", "/demo/values?index=0&format=bytes")
        response = connection.getresponse()
        body = response.read()
        assert (response.status, len(body)) == (200, 65536), body
    return time.perf_counter() - start


def planned(effort: Effort) -> int:
    """Return how many lines there will be."""
    return 1


def lines(effort: Effort) -> Iterator[Line]:
    """Measure them."""
    with ExitStack() as stack:
        server = stack.enter_context(http_server())
        array = zarr.create_array(
            server.root / "data.zarr/values", shape=(4, 128, 128), chunks=(1, 128, 128), dtype="f4", compressors=None
        )
        array[:] = 1.0
        managed, plain = (
            stack.enter_context(serving(kind, f"{server.url}/data.zarr")) for kind in ("managed", "plain")
        )
        yield compare(
            "service",
            f"{REQUESTS} requests of the example service",
            {"managed": lambda: seconds(managed), "the same over FsspecStore": lambda: seconds(plain)},
            effort=effort,
        )


if __name__ == "__main__":
    serve(*sys.argv[1:])
