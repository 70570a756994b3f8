"""A server that is gone, refuses or fails is an error: never "no such key", False, or an empty listing."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
import zarr
import zarr.api.asynchronous
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import GroupNotFoundError

from managed_store import ManagedStore, StoreClosedError
from tests.conftest import BACKENDS, Place, write_hierarchy
from tests.servers import RunningServer, gcs_server, http_server, s3_server
from tests.timing import Stopwatch
from tests.tiny_server import Answer, tiny_server

PROTOTYPE = default_buffer_prototype()
SERVERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {"http": http_server, "s3": s3_server, "gs": gcs_server}

# What zarr, xarray or a careful caller would take for "no such key".
LIKE_A_MISSING_KEY = (LookupError, ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError)


async def collect(iterator: AsyncIterator[str]) -> list[str]:
    """What an asynchronous iterator gives."""
    return [name async for name in iterator]


READS: dict[str, Callable[[ManagedStore], Awaitable[Any]]] = {
    "get": lambda store: store.get("zarr.json", PROTOTYPE),
    "get a part": lambda store: store.get("zarr.json", PROTOTYPE, RangeByteRequest(0, 2)),
    "get nothing": lambda store: store.get("zarr.json", PROTOTYPE, RangeByteRequest(2, 2)),
    "get_partial_values": lambda store: store.get_partial_values(PROTOTYPE, [("zarr.json", None)]),
    "exists": lambda store: store.exists("zarr.json"),
    "getsize": lambda store: store.getsize("zarr.json"),
    "getsize_prefix": lambda store: store.getsize_prefix("numbers"),
    "is_empty": lambda store: store.is_empty(""),
    "list": lambda store: collect(store.list()),
    "list_prefix": lambda store: collect(store.list_prefix("numbers/")),
    "list_dir": lambda store: collect(store.list_dir("")),
    "open_group": lambda store: zarr.api.asynchronous.open_group(store, mode="r"),
    "open_array": lambda store: zarr.api.asynchronous.open_array(store=store, path="numbers", mode="r"),
}
WRITES: dict[str, Callable[[ManagedStore], Awaitable[Any]]] = {
    "set": lambda store: store.set("key", cpu.Buffer.from_bytes(b"x")),
    "set_if_not_exists": lambda store: store.set_if_not_exists("key", cpu.Buffer.from_bytes(b"x")),
    "delete": lambda store: store.delete("zarr.json"),
    "delete_dir": lambda store: store.delete_dir("numbers"),
    "clear": lambda store: store.clear(),
}


def options_for(backend: str, url: str) -> dict[str, Any]:
    """Options for a server at `url` that never answers well: no retries of the libraries beneath."""
    if backend == "s3":
        config = {"retries": {"max_attempts": 0}, "connect_timeout": 2, "read_timeout": 2}
        return {"key": "testing", "secret": "testing", "endpoint_url": url, "config_kwargs": config}
    if backend == "gs":
        return {"endpoint_url": url, "token": "anon", "project": "p", "retry_timeout": 0.05}
    return {}


def place_at(backend: str, url: str) -> Place:
    """Where the hierarchy of a test's own server is."""
    root = url if backend == "http" else f"{backend}://bucket"
    return Place(f"{root}/data.zarr", options_for(backend, url))


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs and gcsfs would try for half a minute: nothing but patience is tested by that."""
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr("gcsfs.retry.is_retriable", lambda error: False)


@contextmanager
def server_with_hierarchy(backend: str) -> Iterator[RunningServer]:
    """A server of the test's own, with the small hierarchy at `place_at`."""
    with SERVERS[backend]() as server:
        if backend == "http":
            write_hierarchy(str(server.root / "data.zarr"))
        else:
            server.create_bucket("bucket")
            with ManagedStore(f"{backend}://bucket/data.zarr", storage_options=server.storage_options) as store:
                write_hierarchy(store)
        yield server


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port on which connections are refused, and which no other server gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def assert_is_an_error(store: ManagedStore, use: Callable[[ManagedStore], Awaitable[Any]]) -> Exception:
    """The use raises something that nobody can take for a missing key, and within five seconds."""
    watch = Stopwatch()
    with pytest.raises(Exception) as caught:
        await use(store)
    assert watch.took() < 5
    error = caught.value
    assert not isinstance(error, (*LIKE_A_MISSING_KEY, StoreClosedError)), repr(error)
    assert not re.search("not found|no such|not exist", str(error), re.IGNORECASE), repr(error)
    return error


@pytest.mark.parametrize("name", [*READS, *WRITES])
@pytest.mark.parametrize("backend", SERVERS)
async def test_refused_connection_is_an_error(backend: str, name: str) -> None:
    """Where no server listens, each use of a fresh store is an error of the connection."""
    with refusing_port() as port:
        place = place_at(backend, f"http://127.0.0.1:{port}")
        async with ManagedStore(place.url, storage_options=place.options) as store:
            if backend == "http" and name in ("delete_dir", "clear"):
                with pytest.raises(NotImplementedError):  # nothing is asked of the server
                    await WRITES[name](store)
                return
            error = await assert_is_an_error(store, {**READS, **WRITES}[name])
            assert isinstance(error, OSError) or "connect" in str(error).lower(), repr(error)


@pytest.mark.parametrize("backend", SERVERS)
async def test_server_that_stops_is_an_error(backend: str) -> None:
    """A store that has read well, and whose pooled connections then end with the server, gives errors from there on."""
    with ExitStack() as stack:
        server = stack.enter_context(server_with_hierarchy(backend))
        place = place_at(backend, server.url)
        async with ManagedStore(place.url, storage_options=place.options) as store:
            before = await READS["get"](store)
            assert before is not None
            assert not await store.is_empty("")
            stack.close()
            for use in READS.values():
                await assert_is_an_error(store, use)


@pytest.mark.parametrize("backend", SERVERS)
def test_synchronous_open_group_on_a_stopped_server_is_an_error(backend: str) -> None:
    """`zarr.open_group` passes the error on: it neither says that there is no group, nor makes one."""
    with refusing_port() as port:
        place = place_at(backend, f"http://127.0.0.1:{port}")
        for mode in ("r", "r+", "a"):
            with ManagedStore(place.url, storage_options=place.options) as store:
                with pytest.raises(Exception) as caught:
                    zarr.open_group(store, mode=mode)
                assert not isinstance(caught.value, LIKE_A_MISSING_KEY), repr(caught.value)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
@pytest.mark.parametrize("backend", SERVERS)
async def test_failing_server_is_an_error(backend: str, status: int) -> None:
    """A server that answers, but with a refusal or a failure, gives an error for each read."""
    with tiny_server(lambda method, path, headers: Answer(status, b"no")) as url:
        place = place_at(backend, url)
        async with ManagedStore(place.url, storage_options=place.options) as store:
            for use in READS.values():
                await assert_is_an_error(store, use)


@pytest.mark.parametrize("name", ["get", "get a part", "get_partial_values", "open_group"])
@pytest.mark.parametrize("backend", SERVERS)
async def test_answer_that_is_cut_short_is_an_error(backend: str, name: str) -> None:
    """A body that ends before its announced length is an error, not a shorter value."""
    with tiny_server(lambda method, path, headers: Answer(body=b"{", declared_length=100)) as url:
        place = place_at(backend, url)
        async with ManagedStore(place.url, storage_options=place.options) as store:
            await assert_is_an_error(store, READS[name])


@pytest.mark.parametrize("status", [404, 410])
async def test_server_that_has_no_such_key(status: int) -> None:
    """404 and 410 both mean that the key is not there, to every read alike."""
    with tiny_server(lambda method, path, headers: Answer(status)) as url:
        async with ManagedStore(url) as store:
            assert not await store.exists("zarr.json")
            assert await store.get("zarr.json", PROTOTYPE, RangeByteRequest(0, 2)) is None
            assert await store.get("zarr.json", PROTOTYPE) is None
            assert await collect(store.list_dir("")) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_hierarchy_is_what_zarr_says(backend: str, place: Place) -> None:
    """A URL where nothing is gives zarr's own error, and reads that say so, on every backend."""
    url = place.url.replace("data.zarr", "missing.zarr")
    with ManagedStore(url, storage_options=place.options) as store:
        with pytest.raises(GroupNotFoundError):
            zarr.open_group(store, mode="r")
        with pytest.raises(FileNotFoundError):
            zarr.open_array(store, mode="r")
        with pytest.raises(FileNotFoundError):
            sync(store.getsize("zarr.json"))
        assert sync(store.get("zarr.json", PROTOTYPE)) is None
        assert sync(store.get("zarr.json", PROTOTYPE, RangeByteRequest(0, 2))) is None
        assert not sync(store.exists("zarr.json"))
        assert sync(store.is_empty(""))
        assert sync(collect(store.list())) == sync(collect(store.list_dir(""))) == []


@pytest.mark.parametrize("backend", ["s3", "gs"])
def test_missing_bucket_is_what_zarr_says(backend: str, place: Place) -> None:
    """A bucket that is not there is a missing hierarchy too."""
    with ManagedStore(place.url.replace("bucket", "no-such-bucket"), storage_options=place.options) as store:
        with pytest.raises(GroupNotFoundError):
            zarr.open_group(store, mode="r")
        assert not sync(store.exists("zarr.json"))
