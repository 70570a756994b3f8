"""A pool on real servers: many stores, one session for each event loop, as the servers see it."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zarr
from fsspec.registry import _registry
from gcsfs.core import GCSFileSystem
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StorePool
from tests.conftest import Place, write_hierarchy
from tests.hierarchy import EXPECTED
from tests.servers import FolderServer, RunningServer, http_server
from tests.uses import aread, read

PROTOTYPE = default_buffer_prototype()
CLOUDS = ("http", "gs", "s3")


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        write_hierarchy(str(server.root / "data.zarr"))
        (server.root / "key").write_bytes(b"content")
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.fixture(autouse=True)
def plain_gcsfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs's other class asks for the kind of a bucket over gRPC, and the server counts those connections too."""
    monkeypatch.setitem(_registry, "gs", GCSFileSystem)


def server_of(backend: str, request: pytest.FixtureRequest) -> RunningServer:
    server: RunningServer = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
    assert server.wait_for_connections(0) == 0  # what other tests have left to be closed in the background
    return server


@pytest.mark.parametrize("backend", CLOUDS)
def test_a_thousand_stores_one_after_the_other(backend: str, place: Place, request: pytest.FixtureRequest) -> None:
    """Through zarr's synchronous API, at two paths of one bucket: one connection, and none afterwards."""
    server = server_of(backend, request)
    opened = server.opened()
    with StorePool(storage_options=place.options) as pool:
        for number in range(1000):
            with pool.store(paths_of(place)[number % 2]) as store:
                assert number % 10 or sync(store.get("zarr.json", PROTOTYPE)) is not None
        assert server.opened() - opened == server.connections() == 1
        assert pool.statistics().opened == pool.statistics().filesystems == 1
    assert server.wait_for_connections(0) == 0


def paths_of(place: Place) -> list[str]:
    return [place.url, f"{place.url}/numbers"]


@pytest.mark.parametrize("backend", CLOUDS)
async def test_a_thousand_stores_ten_at_a_time(backend: str, place: Place, request: pytest.FixtureRequest) -> None:
    """On the caller's loop: never more connections than requests at a time."""
    server = server_of(backend, request)
    opened = server.opened()
    turns = asyncio.Semaphore(10)

    async def use(pool: StorePool, number: int) -> None:
        async with turns, pool.store(paths_of(place)[number % 2]) as store:
            if backend != "s3" or number % 10 == 0:  # moto is slow
                assert await store.get("zarr.json", PROTOTYPE) is not None

    async with StorePool(storage_options=place.options) as pool:
        await asyncio.gather(*(use(pool, number) for number in range(1000)))
        assert 1 <= server.opened() - opened <= 10
        assert pool.statistics().stores == 0
        assert pool.statistics().opened == pool.statistics().filesystems == 1
    assert await asyncio.to_thread(server.wait_for_connections, 0) == 0


@pytest.mark.parametrize("backend", CLOUDS)
def test_whole_hierarchies_from_threads_and_loops(backend: str, place: Place, request: pytest.FixtureRequest) -> None:
    """zarr's loop has one filesystem, and each other loop its own, which goes with it."""
    server = server_of(backend, request)
    with StorePool(storage_options=place.options) as pool, ThreadPoolExecutor(4) as executor:
        steps = [lambda: read(pool.store(place.url)), lambda: asyncio.run(aread(pool.store(place.url)))] * 4
        for step in [executor.submit(step) for step in steps]:
            step.result()
        statistics = pool.statistics()
        assert (statistics.filesystems, statistics.loops, statistics.opened) == (1, 1, 5)
        assert (statistics.closed, statistics.forced) == (4, 0)
    assert server.wait_for_connections(0) == 0
    statistics = pool.statistics()
    assert (statistics.state, statistics.filesystems, statistics.closed) == ("closed", 0, 5)


@pytest.mark.parametrize("backend", ["gs", "s3"])
def test_what_one_store_writes_another_reads(backend: str, empty_place: Place) -> None:
    """Stores at neighbouring paths keep to themselves: one sees no key of another, and deletes none."""
    with StorePool(storage_options=empty_place.options) as pool:
        for name in ("a", "b"):
            write_hierarchy(pool.store(f"{empty_place.url}/{name}"))
        both = pool.store(empty_place.url)
        assert {key for key in sync(_keys(both)) if key.endswith("numbers/zarr.json")} == {
            "a/numbers/zarr.json", "b/numbers/zarr.json",
        }  # fmt: skip
        sync(pool.store(f"{empty_place.url}/a").clear())
        assert not any(key.startswith("a/") for key in sync(_keys(both)))
        np.testing.assert_array_equal(zarr.open_array(pool.store(f"{empty_place.url}/b/numbers"), mode="r"), EXPECTED)
        assert pool.statistics().opened == 1


async def _keys(store: ManagedStore) -> list[str]:
    return [key async for key in store.list()]


def test_closing_a_store_closes_it_alone(server: FolderServer) -> None:
    """Its own handles end with it; its siblings, also at the same URL, read on over the same connection."""
    with StorePool() as pool:
        with pool.store(server.url) as store:
            derived = store.with_read_only(True)
            sibling = pool.store(server.url)
            for each in (store, derived, sibling):
                assert sync(each.exists("key"))
        assert (store.closed, derived.closed, sibling.closed) == (True, True, False)
        for each in (store, derived):
            with pytest.raises(StoreClosedError, match=server.url):
                sync(each.exists("key"))
        assert sync(sibling.exists("key"))
        assert server.opened() == server.connections() == 1
        store.close()
        assert pool.statistics().stores == 1


def test_a_derived_handle_closes_itself_alone(server: FolderServer) -> None:
    """What zarr makes for ``mode="r"`` is closed without its store, and keeps the lease while it lives without it."""
    with StorePool() as pool:
        store = pool.store(f"{server.url}/data.zarr")
        store.with_read_only(True).close()
        assert sync(store.exists("zarr.json"))
        group = zarr.open_group(pool.store(f"{server.url}/data.zarr"), mode="r")
        gc.collect()
        assert pool.statistics().stores == 2
        np.testing.assert_array_equal(group["numbers"], EXPECTED)
        del group
        gc.collect()
        assert pool.statistics().stores == 1


def test_stores_after_the_pool_was_closed(server: FolderServer) -> None:
    """Every store of it is closed, used or not, with its handles; each says its own name."""
    pool = StorePool()
    used, unused = pool.store(f"{server.url}/data.zarr"), pool.store(f"{server.url}/other.zarr")
    derived = used.with_read_only(True)
    assert sync(used.exists("zarr.json"))
    pool.close()
    for store, name in ((used, "data"), (unused, "other"), (derived, "data")):
        assert store.closed
        with pytest.raises(StoreClosedError, match=f"The store '{server.url}/{name}.zarr' was closed"):
            sync(store.get("zarr.json", PROTOTYPE))
        with pytest.raises(StoreClosedError, match=f"{name}.zarr"):
            _ = store.fs
        with pytest.raises(StoreClosedError, match=f"{name}.zarr"):
            store.with_read_only(True)
        with pytest.raises(StoreClosedError, match=f"{name}.zarr"), store:
            pass
        store.close()
    assert (used.statistics().state, used.statistics().loops) == ("closed", 0)
    pool.close()


async def test_both_ways_in_and_out(server: FolderServer) -> None:
    """`with` and `async with`, `close` and `aclose`, each give the pool itself and close it once."""
    with StorePool() as pool:
        with StorePool() as other:
            assert await pool.store(server.url).exists("key")
        assert (pool.closed, other.closed) == (False, True)
    assert pool.closed
    async with StorePool() as pool:
        assert await pool.store(server.url).exists("key")
        assert repr(pool) == "<StorePool open stores=0 filesystems=1 loops=1>"
    await pool.aclose()
    assert repr(pool) == "<StorePool closed stores=0 filesystems=0 loops=0>"
    assert repr(StorePool()) == "<StorePool new stores=0 filesystems=0 loops=0>"


@pytest.mark.parametrize("how", ["dropped", "closed"])
def test_a_dropped_pool_lives_as_long_as_its_stores(server: FolderServer, how: str) -> None:
    """Its stores read on. It ends with the last of them, with a warning only if that was dropped too."""
    pool = StorePool()
    line = _line()
    first, last = pool.store(server.url), pool.store(server.url)
    assert sync(first.exists("key"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        del first
        gc.collect()
        assert sync(last.exists("key"))
        assert (server.opened(), caught) == (1, [])
        if how == "closed":
            last.close()
        del last
        gc.collect()
    if how == "closed":
        assert caught == []
        assert server.connections() == 0 or server.wait_for_connections(0) == 0
    else:
        (warning,) = caught
        assert (warning.category, warning.filename, warning.lineno) == (ResourceWarning, __file__, line - 1)
        assert f"A StorePool was never closed; it was made at {__file__}:{line - 1}" in str(warning.message)


def _line() -> int:
    import inspect

    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_pool_that_was_never_used_is_dropped_in_silence(server: FolderServer) -> None:
    """Nothing was open, so that nothing was forgotten; nor where the only loop has ended."""
    StorePool()
    StorePool().store(server.url)
    ended = StorePool().store(server.url)
    asyncio.run(_exists(ended))
    del ended
    gc.collect()
    assert server.opened() == 1


async def _exists(store: ManagedStore) -> bool:
    return await store.exists("key")


def test_chains_and_places_that_are_shared(server: FolderServer) -> None:
    """A cache is shared by all paths of what it is laid over; references and archives by those with the same URL."""
    references = {"zarr.json": '{"zarr_format": 3, "node_type": "group"}'}
    with StorePool() as pool:
        caches = [pool.store(f"simplecache::{server.url}/{name}") for name in ("data.zarr", "data.zarr/numbers")]
        assert caches[0].fs is caches[1].fs
        read(caches[0])
        np.testing.assert_array_equal(zarr.open_array(caches[1], mode="r"), EXPECTED)
        same = [pool.store("reference://", storage_options={"fo": dict(references)}) for _ in range(2)]
        assert same[0].fs is same[1].fs
        assert zarr.open_group(same[1], mode="r").metadata.zarr_format == 3
        other = pool.store("reference://", storage_options={"fo": {}})
        assert other.fs is not same[0].fs
        folders = [pool.store(f"dir://data.zarr::{server.url}"), pool.store(f"dir://other::{server.url}")]
        assert folders[0].fs is not folders[1].fs


def test_a_store_may_be_made_on_any_thread(server: FolderServer) -> None:
    """Many threads make and use stores at once: one filesystem on zarr's loop."""
    ready = threading.Barrier(8)
    filesystems: list[Any] = []

    def work(pool: StorePool) -> None:
        ready.wait()
        for _ in range(20):
            with pool.store(server.url) as store:
                assert sync(store.exists("key"))
                filesystems.append(store.fs)

    with StorePool() as pool:
        threads = [threading.Thread(target=work, args=[pool]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(filesystems) == 160
        assert len({id(each) for each in filesystems}) == 1
        assert server.opened() <= 8
        assert pool.statistics().opened == 1
