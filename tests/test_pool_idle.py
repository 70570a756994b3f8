"""Filesystems of a pool that nobody uses are closed: after `max_idle`, and the least recently used beyond the limit."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import loop as zarr_loops
from zarr.core.sync import sync

from managed_store import ManagedStore, StorePool
from tests.driven_loops import PausedLoop, ThreadLoop
from tests.footprint import NOTHING, Footprint
from tests.servers import FolderServer, http_server
from tests.stopping import start_loops

PROTOTYPE = default_buffer_prototype()
SOON = 0.1

ROTATIONS = 4_000 if os.environ.get("MANAGED_STORE_TEST_ALL") == "1" else 2_000


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        (server.root / "key").write_bytes(b"content")
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.fixture
def slow_server() -> Iterator[FolderServer]:
    """The same, which takes its time for each answer."""
    with http_server(latency=3 * SOON) as server:
        (server.root / "key").write_bytes(b"content")
        yield server
        assert server.wait_for_connections(0) == 0


async def get(store: ManagedStore) -> None:
    value = await store.get("key", PROTOTYPE)
    assert value is not None
    assert value.to_bytes() == b"content"


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def token(number: int) -> dict[str, Any]:
    """Options like no other's."""
    return {"headers": {"X-Token": str(number)}}


def test_an_idle_filesystem_is_closed_and_opened_again(server: FolderServer) -> None:
    """On each loop, by that loop's own timer; the store is none the wiser."""
    thread = ThreadLoop()
    with StorePool(max_idle=SOON) as pool:
        store = pool.store(server.url)
        for _ in range(2):
            sync(get(store))
            thread.run(get(store))
            eventually(lambda: pool.statistics().filesystems == 0)
            assert server.wait_for_connections(0) == 0
            assert not store.closed
        statistics = pool.statistics()
        assert (statistics.stores, statistics.opened, statistics.closed, statistics.forced) == (1, 4, 4, 0)
    thread.end(properly=True)


def test_a_filesystem_in_use_is_not_closed(slow_server: FolderServer) -> None:
    """Neither while an answer takes longer than `max_idle`, nor while requests come more often."""
    with StorePool(max_idle=SOON) as pool:
        store = pool.store(slow_server.url)
        sync(get(store))
        filesystem = store.fs
        for _ in range(3):
            sync(get(store))
            assert store.fs is filesystem
        assert pool.statistics().opened == slow_server.opened() == 1


@pytest.mark.parametrize("max_idle", [1e-9, 0.001])
def test_the_shortest_of_times(server: FolderServer, max_idle: float) -> None:
    """Between opening and its first request a session is not idle: every request has its answer, on every loop."""

    async def several(store: ManagedStore) -> None:
        await asyncio.gather(*(get(store) for _ in range(5)))
        for _ in range(20):
            await get(store)

    thread = ThreadLoop()
    with StorePool(max_idle=max_idle) as pool:
        store = pool.store(server.url)
        sync(several(store))
        thread.run(several(store))
        for _ in range(20):
            assert store.fs is not None
        eventually(lambda: pool.statistics().filesystems == 0)
    thread.end(properly=True)


async def test_the_filesystem_at_once_while_the_last_one_is_closing(server: FolderServer) -> None:
    """`fs` cannot wait for the idle one to be closed: it is cut off, and the new one works."""
    async with StorePool(max_idle=math.inf) as pool:
        store = pool.store(server.url)
        await get(store)
        before = store.fs
        (session,) = pool._pool.sessions()
        assert session.close_if_idle()
        after = store.fs
        assert after is not before
        await get(store)
        assert store.fs is after
        assert pool.statistics().filesystems == 1


def test_idle_for_ever(server: FolderServer) -> None:
    """With ``math.inf`` there is no timer."""
    with StorePool(max_idle=math.inf) as pool:
        sync(get(pool.store(server.url)))
        assert timers() == 0
        time.sleep(SOON)
        assert pool.statistics().filesystems == 1


def timers(loop: Any = None) -> int:
    """How many timers of pools wait on a loop, or else on zarr's."""
    loop = zarr_loops[0] if loop is None else loop
    return sum("IdleTimer" in repr(handle) for handle in loop._scheduled if not handle.cancelled())


def test_timers_go_with_their_sessions(server: FolderServer) -> None:
    """A closed pool leaves none on a loop; they keep neither the pool, nor a store or a session alive."""
    pool = StorePool()
    store = pool.store(server.url)
    sync(get(store))
    assert timers() == 1
    references = [weakref.ref(each) for each in (pool, pool._pool, store, *pool._pool.sessions())]
    pool.close()
    assert timers() == 0
    del pool, store
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a", "memory://a"])
def test_an_open_session_keeps_nothing_of_whoever_opened_it(url: str) -> None:
    """A service's first request has context variables: a session that waits to be idle does not hold on to them."""
    start_loops()  # of zarr and fsspec: each keeps the context of whoever started it
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("of a request")

    class Payload:
        pass

    def use(pool: StorePool) -> weakref.ref[Any]:
        payload = Payload()
        variable.set(payload)
        store = pool.store(url)
        assert store.fs is not None
        if url.startswith("memory"):
            sync(store.exists("a"))
        return weakref.ref(payload)

    with StorePool() as pool:
        reference = contextvars.copy_context().run(use, pool)
        sync(asyncio.sleep(0))
        gc.collect()
        assert pool.statistics().filesystems == timers() == 1
        assert reference() is None


def test_the_least_recently_used_goes_first(server: FolderServer) -> None:
    """Beyond `max_filesystems`; what was used since has its place."""
    with StorePool(max_filesystems=3) as pool:
        stores = [pool.store(server.url, storage_options=token(number)) for number in range(5)]
        for number in (0, 1, 2, 0, 3):
            sync(get(stores[number]))
        eventually(lambda: pool.statistics().filesystems == 3)
        assert [store.statistics().loops for store in stores] == [1, 0, 1, 1, 0]
        sync(get(stores[4]))
        eventually(lambda: pool.statistics().filesystems == 3)
        assert [store.statistics().loops for store in stores] == [1, 0, 0, 1, 1]
        assert server.wait_for_connections(3) == 3
        assert (pool.statistics().closed, pool.statistics().forced) == (2, 0)


async def test_what_is_in_use_is_never_closed_for_others(slow_server: FolderServer) -> None:
    """So that there can be more for a while; each has its answer."""
    async with StorePool(max_filesystems=2) as pool:
        stores = [pool.store(slow_server.url, storage_options=token(number)) for number in range(6)]
        reading = [asyncio.create_task(get(store)) for store in stores]
        await asyncio.sleep(SOON)
        assert pool.statistics().filesystems == 6
        await asyncio.gather(*reading)
        await get(pool.store(slow_server.url, storage_options=token(7)))
        assert pool.statistics().filesystems == 2


def test_filesystems_of_a_paused_loop(server: FolderServer) -> None:
    """A loop may run again at any moment, so that it is left alone until it does; then it closes what is too much."""
    paused = PausedLoop()
    with StorePool(max_filesystems=1) as pool:
        first = pool.store(server.url, storage_options=token(1))
        paused.run(get(first))
        for number in range(10, 20):
            sync(get(pool.store(server.url, storage_options=token(number))))
        eventually(lambda: pool.statistics().filesystems == 2)
        assert first.statistics().loops == 1
        assert len(paused._loop._ready) <= 1  # type: ignore[attr-defined]
        paused.run(asyncio.sleep(0.05))
        assert first.statistics().loops == 0
        paused.run(get(first))
        eventually(lambda: pool.statistics().filesystems == 1)
    paused.end(properly=True)


async def test_rotated_secrets() -> None:
    """Rotated without a request: memory, descriptors, threads and timers are flat, and few are open at a time."""
    process, loop = psutil.Process(), asyncio.get_running_loop()
    limit = 10
    async with StorePool(max_filesystems=limit) as pool:
        for number in range(ROTATIONS):
            _ = pool.store("http://127.0.0.1:1/", storage_options=token(number)).fs
            await asyncio.sleep(0)
            if number % 250 == 0:
                gc.collect()
                assert pool.statistics().filesystems <= 2 * limit  # some of them are closing
            if number == ROTATIONS // 4:
                before, blocks, memory = Footprint.now(), sys.getallocatedblocks(), process.memory_info().rss
        while pool.statistics().filesystems > limit:
            await asyncio.sleep(0)
        gc.collect()
        grown = before.grown_by(Footprint.now())
        assert all(abs(count) <= limit for count in grown.values()), grown
        assert sys.getallocatedblocks() - blocks < 2 * ROTATIONS
        assert process.memory_info().rss - memory < 8 * 2**20
        assert len(pool._pool._owners) == limit
        assert timers(loop) == limit
        assert len(loop._scheduled) < 300  # type: ignore[attr-defined]  # asyncio sweeps those cancelled now and then
        statistics = pool.statistics()
        assert (statistics.stores, statistics.opened, statistics.forced) == (0, ROTATIONS, 0)
    assert timers(loop) == 0


def test_rotated_secrets_with_requests(server: FolderServer) -> None:
    """On zarr's loop and on one of the caller's: the server never sees more than the limit, and a few that close."""
    thread = ThreadLoop()
    before = Footprint.before()
    with StorePool(max_filesystems=5) as pool:
        for number in range(300):
            with pool.store(server.url, storage_options=token(number)) as store:
                sync(get(store))
                thread.run(get(store))
            if number % 20 == 0:
                assert server.connections() <= 12
        eventually(lambda: pool.statistics().filesystems <= 5)
        assert pool.statistics().opened == 600
        assert pool.statistics().forced == 0
    assert before.grown_by(Footprint.now()) == NOTHING
    thread.end(properly=True)
