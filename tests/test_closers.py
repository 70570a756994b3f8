"""Canaries: what each closer closes is there after real use, so that a rename upstream fails here first."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import aiohttp
import pytest
import uvloop
from fsspec.implementations.http import HTTPFileSystem
from gcsfs.core import GCSFileSystem
from s3fs import S3FileSystem
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore
from managed_store._closers import closer_for, retire_finalizers
from tests.conftest import Place
from tests.servers import FolderServer, GCSServer, S3Server, http_server

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


try:
    from gcsfs.extended_gcsfs import ExtendedGcsFileSystem
except ImportError:  # the lowest version that is supported has no such class
    ExtendedGcsFileSystem = None


class RefusedError(RuntimeError):
    """What the sealed methods raise in these tests."""


def refuse(*args: object, **kwargs: object) -> NoReturn:
    raise RefusedError


def finalizers(filesystem: Any) -> list[Any]:
    """The live finalizers that somebody registered for the filesystem."""
    callbacks = [reference.__callback__ for reference in weakref.getweakrefs(filesystem)]
    return [callback for callback in callbacks if isinstance(callback, weakref.finalize) and callback.alive]


async def pooled(connector: aiohttp.BaseConnector) -> list[Any]:
    """The connections in the pool, when there is one: old aiohttp gives one back a few turns after the answer."""
    async with asyncio.timeout(1):
        while not connector._conns:
            await asyncio.sleep(0)
    return [protocol for connections in connector._conns.values() for protocol, _ in connections]


KINDS = ["http", "gcs core", "gcs extended", "s3", "s3 with regions"]
if ExtendedGcsFileSystem is None:
    KINDS.remove("gcs extended")


@pytest.fixture(params=KINDS)
async def used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any, str]:
    """Each kind of filesystem, private and asynchronous, after real use; its name, itself, and a key that it has."""
    kind = request.param
    if kind == "http":
        http: FolderServer = request.getfixturevalue("http")
        filesystem: Any = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
        key = f"{http.url}/data.zarr/zarr.json"
    elif kind.startswith("gcs"):
        gcs: GCSServer = request.getfixturevalue("gcs")
        cls = GCSFileSystem if kind == "gcs core" else ExtendedGcsFileSystem
        filesystem = cls(asynchronous=True, skip_instance_cache=True, **gcs.storage_options)
        key = "bucket/data.zarr/zarr.json"
        await filesystem._pipe_file("bucket/canary", CONTENT)
    else:
        s3: S3Server = request.getfixturevalue("s3")
        options = dict(s3.storage_options)
        if kind == "s3 with regions":  # s3fs caches no regions where the options name an endpoint
            monkeypatch.setenv("AWS_ENDPOINT_URL", options.pop("endpoint_url"))
            options["cache_regions"] = True
        filesystem = S3FileSystem(asynchronous=True, skip_instance_cache=True, **options)
        key = "bucket/data.zarr/zarr.json"
    assert b"zarr_format" in await filesystem._cat_file(key)
    return kind, filesystem, key


async def test_what_a_closer_closes_is_there_and_is_closed(used: tuple[str, Any, str]) -> None:
    """The private names that closers read exist, hold something after use, and hold nothing open after closing."""
    kind, filesystem, key = used
    closer = closer_for(filesystem)
    sessions = list(closer.sessions())  # type: ignore[attr-defined]
    if kind.startswith("s3"):
        assert filesystem._s3creator is not None
        assert filesystem._s3 is not None
        assert len(sessions) == (2 if kind == "s3 with regions" else 1)
        if kind == "s3 with regions":
            assert filesystem._s3creator._client is not None
            assert filesystem._s3creator._buckets["bucket"] is not filesystem._s3creator._client
    else:
        assert sessions == [filesystem._session]
    if kind == "gcs extended":
        assert filesystem._storage_control_client is not None
        assert filesystem._grpc_client is None  # only zonal buckets make one
        assert filesystem._mrd_pool_cache is not None
        assert filesystem._memmove_executor is not None
    transports = []
    for session in sessions:
        assert isinstance(session, aiohttp.ClientSession)
        assert session._loop is asyncio.get_running_loop()
        assert session.connector is not None
        transports += [protocol.transport for protocol in await pooled(session.connector)]
    assert transports
    assert all(transport._sock is not None for transport in transports)
    for opener in closer.openers:  # type: ignore[attr-defined]
        assert callable(getattr(type(filesystem), opener))
    closer.seal(refuse)
    assert closer.still_open() != []
    await closer.close()
    assert closer.still_open() == []
    assert all(session.closed for session in sessions)
    assert [transport._sock for transport in transports] == [None] * len(transports)
    for call in (filesystem._cat_file, filesystem._info):
        with pytest.raises(RefusedError):
            await call(key)
    assert closer.still_open() == []
    retire_finalizers(filesystem)


async def test_forcing_closes_the_sockets_of_a_running_loop(used: tuple[str, Any, str]) -> None:
    """By force nothing is awaited, and a few turns later nothing is open."""
    _, filesystem, _ = used
    closer = closer_for(filesystem)
    closer.seal(refuse)
    closer.force()
    for _ in range(5):
        await asyncio.sleep(0)
    assert closer.still_open() == []
    await closer.close()  # must cope with what was forced
    retire_finalizers(filesystem)


async def test_the_names_that_force_uses_are_there(https: FolderServer) -> None:
    """Under TLS the socket is found below the TLS protocol: canaries for asyncio's private names."""
    filesystem = HTTPFileSystem(asynchronous=True, skip_instance_cache=True, ssl=https.ssl_context())
    await filesystem._cat_file(f"{https.url}/data.zarr/zarr.json")
    connector = filesystem._session.connector
    (protocol,) = await pooled(connector)
    assert isinstance(connector._acquired, set)
    assert protocol.transport._ssl_protocol._transport._sock is not None
    closer = closer_for(filesystem)
    closer.seal(refuse)
    await closer.close()
    assert closer.still_open() == []


@pytest.mark.parametrize("backend", ["http", "gs", "s3"])
def test_finalizers_of_the_backend_are_detached(backend: str, place: Place) -> None:
    """gcsfs registers three for each filesystem; after closing none is left to run on the wrong loop."""
    with ManagedStore(place.url, storage_options=place.options) as store:
        sync(store.exists("zarr.json"))
        filesystem = store.fs
        if backend == "gs":  # the canary: gcsfs registers one when it makes the session
            assert finalizers(filesystem) != []
    assert finalizers(filesystem) == []


def test_a_finalizer_of_the_users_own_is_kept(http: FolderServer) -> None:
    """What the user registered for the store's filesystem stays theirs, and is not detached."""
    with ManagedStore(f"{http.url}/data.zarr") as store:
        filesystem = store.fs
        sync(store.exists("zarr.json"))
        theirs = weakref.finalize(filesystem, lambda: None)
    assert theirs.alive
    theirs.detach()


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection, and nothing must have been logged."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server
        assert server.wait_for_connections(0) == 0
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_forcing_closes_the_sockets_of_a_paused_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], tls: bool
) -> None:
    """The closer alone: the server sees the close although the loop does not run, and the loop can go on."""
    with http_server(tls=tls) as server:
        (server.root / KEY).write_bytes(CONTENT)
        options = {"ssl": server.ssl_context()} if tls else {}
        with asyncio.Runner(loop_factory=new_loop) as runner:
            filesystem = HTTPFileSystem(asynchronous=True, skip_instance_cache=True, **options)
            assert runner.run(filesystem._cat_file(f"{server.url}/{KEY}")) == CONTENT
            closer = closer_for(filesystem)
            closer.seal(refuse)
            closer.force()
            assert server.wait_for_connections(0) == 0
            runner.run(asyncio.sleep(0.01))
            assert closer.still_open() == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_forcing_what_the_other_side_has_reset(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The loop is paused and has not seen it: forcing must not raise, or what comes after it would stay open."""
    with socket.create_server(("127.0.0.1", 0)) as listening, asyncio.Runner(loop_factory=new_loop) as runner:

        def serve() -> socket.socket:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
            return connection

        filesystem = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(serve)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/{KEY}"
            assert runner.run(filesystem._cat_file(url)) == b"abc"
            connection = answered.result()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # and so resets it
        closer = closer_for(filesystem)
        closer.seal(refuse)
        closer.force()
        runner.run(asyncio.sleep(0.01))
        assert closer.still_open() == []


def test_forcing_closes_the_sockets_of_a_closed_loop(server: FolderServer) -> None:
    """The same for a loop that was closed with its connections open."""
    loop = asyncio.new_event_loop()
    filesystem = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
    assert loop.run_until_complete(filesystem._cat_file(f"{server.url}/{KEY}")) == CONTENT
    loop.close()
    closer = closer_for(filesystem)
    closer.seal(refuse)
    closer.force()
    assert closer.still_open() == []
    assert server.wait_for_connections(0) == 0


async def test_closing_what_was_never_opened(http: FolderServer, gcs: GCSServer, s3: S3Server) -> None:
    """A closer of a filesystem that was never used opens nothing in order to close it."""
    for cls, server in ((HTTPFileSystem, http), (ExtendedGcsFileSystem or GCSFileSystem, gcs), (S3FileSystem, s3)):
        opened = server.opened()
        filesystem = cls(asynchronous=True, skip_instance_cache=True, **server.storage_options)
        retire_finalizers(filesystem)
        closer = closer_for(filesystem)
        closer.seal(refuse)
        assert closer.still_open() == []
        await closer.close()
        closer.force()
        assert closer.still_open() == []
        assert server.opened() == opened


@pytest.mark.skipif(ExtendedGcsFileSystem is None, reason="this gcsfs speaks no gRPC")
async def test_a_write_through_gcs_leaves_no_channel(gcs: GCSServer) -> None:
    """gcsfs asks for the bucket's type over gRPC before a write: that channel is closed with the store."""
    async with ManagedStore("gs://bucket/canary.zarr", storage_options=gcs.storage_options) as store:
        await store.set("key", cpu.Buffer.from_bytes(b"x"))
        filesystem: Any = store.fs
        assert filesystem._storage_control_client is not None
    assert filesystem._storage_control_client is None
    assert filesystem._memmove_executor._shutdown
