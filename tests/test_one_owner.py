"""The filesystems of a store are its own: found in no cache, and closing them disturbs nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import fsspec
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore, StoreClosedError
from tests.conftest import Place, write_hierarchy
from tests.servers import FolderServer, http_server
from tests.uses import read

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        write_hierarchy(str(server.root / "data.zarr"))
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.mark.parametrize("backend", ["http", "gs", "s3", "memory", "file"])
def test_filesystems_are_in_no_cache(backend: str, empty_place: Place) -> None:
    """fsspec's cache of instances holds no filesystem of the store, nor one that it wraps."""
    with ManagedStore(empty_place.url, storage_options=empty_place.options) as store:
        sync(store.exists("zarr.json"))
        filesystem = store.fs
        for each in (filesystem, getattr(filesystem, "sync_fs", filesystem)):
            for cls in type(each).__mro__:
                cache = getattr(cls, "_cache", {})
                assert not any(cached is each for cached in cache.values())


@pytest.mark.parametrize("backend", ["http", "gs", "s3"])
def test_two_stores_over_one_url_are_independent(backend: str, place: Place) -> None:
    """Closing one of two stores with the same options leaves the other one reading, with its own connections."""
    first = ManagedStore(place.url, storage_options=place.options)
    second = ManagedStore(place.url, storage_options=place.options)
    with second:
        read(first)
        read(second)
        assert first == second
        assert first.fs is not second.fs
        first.close()
        read(second)
        with pytest.raises(StoreClosedError):
            sync(first.exists("zarr.json"))


def test_everybody_elses_fsspec_goes_on(server: FolderServer) -> None:
    """A shared `fsspec.filesystem("http")` and a plain zarr store over the same URL outlive the managed one."""
    shared = fsspec.filesystem("http")
    plain = FsspecStore.from_url(f"{server.url}/data.zarr")
    try:
        assert shared.cat(f"{server.url}/{KEY}") == CONTENT
        read(plain)
        with ManagedStore(f"{server.url}/data.zarr") as store:
            read(store)
            assert store.fs is not plain.fs
            assert store.fs is not shared
        assert shared.cat(f"{server.url}/{KEY}") == CONTENT
        read(plain)
        assert fsspec.filesystem("http") is shared
    finally:  # what plain users leave open is theirs; here it must not outlive the test
        fsspec.asyn.sync(shared.loop, shared._session.close)
        sync(plain.fs._session.close())
        fsspec.get_filesystem_class("http").clear_instance_cache()


def test_a_store_made_while_another_is_open_does_not_share_its_session(server: FolderServer) -> None:
    """Stores that come and go within the life of another open and close their own connections alone."""
    with ManagedStore(server.url) as outer:
        sync(outer.get(KEY, PROTOTYPE))
        for _ in range(5):
            with ManagedStore(server.url) as inner:
                sync(inner.get(KEY, PROTOTYPE))
                assert server.wait_for_connections(2) == 2
            assert server.wait_for_connections(1) == 1
        assert outer.statistics().opened == 1


@pytest.fixture
async def connector() -> AsyncIterator[aiohttp.TCPConnector]:
    """A connector of the user's own."""
    connector = aiohttp.TCPConnector()
    yield connector
    await connector.close()


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_connector_of_the_users_is_borrowed(
    server: FolderServer, connector: aiohttp.TCPConnector, says_so: bool
) -> None:
    """A connector that the user handed in serves their other sessions before, during and after; it is not closed."""
    client_options = {"connector": connector, **({"connector_owner": False} if says_so else {})}
    async with aiohttp.ClientSession(connector=connector, connector_owner=False) as theirs:

        async def read_theirs() -> bytes:
            async with theirs.get(f"{server.url}/{KEY}") as response:
                return await response.read()

        assert await read_theirs() == CONTENT
        loop = asyncio.get_running_loop()
        async with ManagedStore(server.url, storage_options={"client_kwargs": client_options}) as store:
            await asyncio.gather(*(store.get(KEY, PROTOTYPE) for _ in range(3)))
            started = loop.time()
        assert loop.time() - started < 1  # connections that stay open are nothing to wait for
        assert not connector.closed
        assert await read_theirs() == CONTENT
    with pytest.raises(StoreClosedError):
        await store.get(KEY, PROTOTYPE)
    await connector.close()
    assert await asyncio.to_thread(server.wait_for_connections, 0) == 0


async def test_a_session_that_the_users_factory_makes_is_closed(server: FolderServer) -> None:
    """What `get_client` makes belongs to the filesystem, and is closed with it."""
    made: list[aiohttp.ClientSession] = []

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        made.append(aiohttp.ClientSession(**options))
        return made[-1]

    async with ManagedStore(server.url, storage_options={"get_client": get_client}) as store:
        await store.get(KEY, PROTOTYPE)
    assert [session.closed for session in made] == [True]
