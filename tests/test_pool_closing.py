"""Closing a pool: everything, within one budget, whatever is going on on its loops; and what is left to the end."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import fsspec
import pytest
from fsspec.implementations.http import HTTPFileSystem
from fsspec.registry import _registry
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StoreCloseError, StorePool, register_closer
from managed_store._closers import _registry as registry
from managed_store._closers.http import HttpCloser
from managed_store._pooling import SharedOwner
from tests.driven_loops import PausedLoop, ThreadLoop
from tests.footprint import NOTHING, Footprint
from tests.servers import FolderServer, http_server

PROTOTYPE = default_buffer_prototype()
ROUNDS = 40


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        (server.root / "key").write_bytes(b"content")
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.fixture
def slow_server() -> Iterator[FolderServer]:
    """The same, which takes two seconds for each answer."""
    with http_server(latency=2) as server:
        (server.root / "key").write_bytes(b"content")
        yield server
        assert server.wait_for_connections(0) == 0


async def get(store: ManagedStore) -> None:
    value = await store.get("key", PROTOTYPE)
    assert value is not None
    assert value.to_bytes() == b"content"


def token(number: int) -> dict[str, Any]:
    """Options like no other's."""
    return {"headers": {"X-Token": str(number)}}


def read_on(pool: StorePool, url: str, ends: Counter[str]) -> None:
    """Make stores and read through zarr's loop, until the pool is closed."""
    try:
        for number in range(10**6):
            sync(get(pool.store(url, storage_options=token(number % 3))))
            ends["answered"] += 1
    except StoreClosedError:
        ends["closed"] += 1


async def read_on_a_loop(pool: StorePool, url: str, ends: Counter[str]) -> None:
    try:
        for number in range(10**6):
            await get(pool.store(url, storage_options=token(number % 3)))
            ends["answered"] += 1
    except StoreClosedError:
        ends["closed"] += 1


def test_a_pool_closed_while_its_stores_are_read(server: FolderServer) -> None:
    """By eight threads and on three loops: each reader ends with data or StoreClosedError, and no socket is left."""
    chance = random.Random(0)
    ends: Counter[str] = Counter()
    sync(asyncio.sleep(0))
    before = Footprint.before()
    with ExitStack() as stack:
        loops = [ThreadLoop() for _ in range(3)]
        for loop in loops:
            stack.callback(loop.end, properly=True)
        executor = stack.enter_context(ThreadPoolExecutor(8 + len(loops)))
        idle = Footprint.now().sockets
        for number in range(ROUNDS):
            pool = StorePool()
            readers = [executor.submit(read_on, pool, server.url, ends) for _ in range(8)]
            readers += [executor.submit(loop.run, read_on_a_loop(pool, server.url, ends)) for loop in loops]
            time.sleep(chance.uniform(0, 0.05))
            if number % 3 == 0:
                with pytest.raises(ZeroDivisionError), pool:
                    _ = 1 / 0
            elif number % 3 == 1:
                pool.close()
            else:
                asyncio.run(pool.aclose())
            assert Footprint.now().sockets == idle or server.wait_for_connections(0) == 0
            for reader in readers:
                reader.result(timeout=20)
            statistics = pool.statistics()
            assert (statistics.state, statistics.filesystems, statistics.requests_in_flight) == ("closed", 0, 0)
            assert Footprint.now().sockets == idle
    assert before.grown_by(Footprint.now()) == NOTHING
    assert ends["closed"] == ROUNDS * 11
    assert ends["answered"] > ROUNDS


def test_several_close_at_once(server: FolderServer) -> None:
    """From threads and loops: each returns when it is closed."""
    pool = StorePool()
    loops = [ThreadLoop() for _ in range(2)]
    store = pool.store(server.url)
    for loop in loops:
        loop.run(get(store))
    sync(get(store))

    def close(step: Any) -> None:
        step()
        assert pool.statistics().filesystems == 0

    closers = [pool.close, pool.close, lambda: asyncio.run(pool.aclose()), lambda: loops[0].run(pool.aclose())]
    with ThreadPoolExecutor(5) as executor:
        executor.submit(store.close)
        for each in [executor.submit(close, step) for step in closers]:
            each.result(timeout=10)
    assert pool.statistics().closed == 3
    for loop in loops:
        loop.end(properly=True)


async def test_requests_may_finish_on_a_clean_exit(slow_server: FolderServer) -> None:
    """On every loop within the time; after an exception a read is cut off at once, and says whose it was."""
    loop = ThreadLoop()
    for raises in (False, True):
        started = time.monotonic()
        pool = StorePool(close_timeout=8)
        stores = [pool.store(slow_server.url), pool.store(f"{slow_server.url}/")]
        reading = [
            asyncio.create_task(get(stores[0])),
            asyncio.create_task(asyncio.to_thread(loop.run, get(stores[1]))),
        ]
        while pool.statistics().requests_in_flight < 2:
            await asyncio.sleep(0.01)
        try:
            async with pool:
                if raises:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert time.monotonic() - started < 2
            for store, read in zip(stores, reading, strict=True):
                with pytest.raises(StoreClosedError, match=f"'{store.url}' was closed before the answer"):
                    await read
        else:
            await asyncio.gather(*reading)
        assert pool.statistics().filesystems == 0
    loop.end(properly=True)


def test_one_budget_for_all(slow_server: FolderServer) -> None:
    """Whatever the number of filesystems and loops, leaving takes `close_timeout` once; the rest is cut off."""
    loops = [ThreadLoop() for _ in range(3)]
    with StorePool(close_timeout=0.4) as pool, ThreadPoolExecutor(12) as executor:
        stores = [pool.store(slow_server.url, storage_options=token(number)) for number in range(3)]
        reads = [executor.submit(loop.run, get(store)) for store in stores for loop in loops]
        reads += [executor.submit(sync, get(store)) for store in stores]
        while pool.statistics().requests_in_flight < len(reads):
            time.sleep(0.01)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 1.5
        for read in reads:
            with pytest.raises(StoreClosedError):
                read.result(timeout=5)
    for loop in loops:
        loop.end(properly=True)


class Watched(HTTPFileSystem):
    """An HTTP filesystem whose closing a test watches."""

    protocol = "watched"


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """In which order filesystems are closed, by their option `x_name`; one called "stuck" keeps something open."""
    closed: list[str] = []

    class WatchedCloser(HttpCloser):
        async def close(self) -> None:
            closed.append(self.filesystem.kwargs["x_name"])
            await super().close()

        def still_open(self) -> list[str]:
            name = self.filesystem.kwargs["x_name"]
            return [f"the thing of {name}"] if name.startswith("stuck") else super().still_open()

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    fsspec.register_implementation("watched", Watched, clobber=True)
    register_closer(Watched, WatchedCloser)
    yield closed
    _registry.pop("watched")


@pytest.mark.parametrize("how", ["close", "aclose", "from its loop"])
def test_the_most_recently_opened_is_closed_first(watched: list[str], how: str) -> None:
    names = ["a", "b", "c", "d"]
    pool = StorePool()

    async def use() -> None:
        for name in names:
            _ = pool.store("watched://", storage_options={"x_name": name}).fs
            await asyncio.sleep(0)
        if how == "from its loop":
            await pool.aclose()

    if how == "from its loop":
        asyncio.run(use())
    else:
        sync(use())
        pool.close() if how == "close" else asyncio.run(pool.aclose())
    assert watched == names[::-1]


@pytest.mark.parametrize("how", ["close", "aclose"])
def test_failures_are_raised_together_after_all_were_attempted(watched: list[str], how: str) -> None:
    """Two of four leave something open: one error that names both; the others are closed."""
    pool = StorePool()
    names = ["a", "stuck one", "b", "stuck two"]
    for name in names:
        _ = pool.store("watched://", storage_options={"x_name": name}).fs
    with pytest.raises(StoreCloseError, match="the thing of stuck one") as caught:
        pool.close() if how == "close" else asyncio.run(pool.aclose())
    assert sorted(caught.value.left_open) == ["the thing of stuck one", "the thing of stuck two"]
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2
    assert sorted(watched) == sorted(names)
    assert (pool.closed, pool.statistics().filesystems) == (True, 0)
    pool.close()


def test_the_exception_of_the_body_wins(watched: list[str]) -> None:
    """A failure to close is a note on it."""
    with pytest.raises(ZeroDivisionError) as caught, StorePool() as pool:
        _ = pool.store("watched://", storage_options={"x_name": "stuck"}).fs
        _ = 1 / 0
    assert "While leaving the block: Closing 'watched://' left open: the thing of stuck." in caught.value.__notes__


def test_loops_that_have_ended_or_do_not_run(server: FolderServer) -> None:
    """A loop that ends takes its filesystem with it; of one that is paused, or was closed as it was, it is cut off."""
    paused, dropped = PausedLoop(), PausedLoop()
    with StorePool() as pool:
        stores = [pool.store(server.url, storage_options=token(number)) for number in range(2)]
        for _ in range(2):
            for store in stores:
                asyncio.run(get(store))
        assert pool.statistics().closed == 4
        for store in stores:
            paused.run(get(store))
            dropped.run(get(store))
        dropped.end(properly=False)
        sync(get(stores[0]))
        assert (pool.statistics().filesystems, pool.statistics().forced) == (3, 2)
    assert (pool.statistics().filesystems, pool.statistics().forced) == (0, 4)
    assert Footprint.now().sockets == 0
    paused.end(properly=True)


def test_closing_on_zarrs_own_loop(server: FolderServer) -> None:
    """`close` there cannot wait for that loop, and does not block it: sockets are cut off at once."""
    pool = StorePool()
    store = pool.store(server.url)
    sync(get(store))

    async def close() -> None:
        pool.close()

    sync(close())
    with pytest.raises(StoreClosedError):
        sync(get(store))
    deadline = time.monotonic() + 5
    while pool.statistics().filesystems:
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_a_cancelled_aclose_still_closes(slow_server: FolderServer) -> None:
    """The cancellation is raised when everything is closed."""
    pool = StorePool()
    reading = asyncio.create_task(get(pool.store(slow_server.url)))
    while pool.statistics().requests_in_flight == 0:
        await asyncio.sleep(0.01)
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(StoreClosedError):
        await reading
    assert pool.statistics().filesystems == 0


def test_a_store_that_is_made_while_the_pool_closes(server: FolderServer) -> None:
    """It is refused, or closed with the others: never left open."""
    for _ in range(100):
        pool = StorePool()
        ready = threading.Barrier(2)
        made: list[ManagedStore] = []

        def make(pool: StorePool = pool, ready: threading.Barrier = ready, made: list[ManagedStore] = made) -> None:
            ready.wait()
            try:
                made.append(pool.store("memory://a"))
                sync(made[0].exists("zarr.json"))
            except StoreClosedError:
                pass

        thread = threading.Thread(target=make)
        thread.start()
        ready.wait()
        pool.close()
        thread.join()
        assert pool.statistics().filesystems == 0
        assert all(store.closed for store in made)


def test_what_is_closed_is_not_kept(server: FolderServer) -> None:
    """Neither the pool nor its sessions are held by anything of ours afterwards."""
    pool = StorePool()
    store = pool.store(server.url)
    sync(get(store))
    sessions = [weakref.ref(each) for each in pool._pool.sessions()]
    pool.close()
    reference = weakref.ref(pool._pool)
    del pool, store
    gc.collect()
    assert reference() is None
    assert [each() for each in sessions] == [None]


def test_two_threads_that_make_an_owner_at_once(server: FolderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One overtakes the other while that makes the owner of the sessions of both: the pool closes what either opens."""
    second, made = threading.Event(), []

    class Overtaken(SharedOwner):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)
            if len(made) == 1:
                assert second.wait(10)

    monkeypatch.setattr("managed_store._pooling.SharedOwner", Overtaken)
    with StorePool() as pool, ThreadPoolExecutor(1) as executor:
        stores = [pool.store(server.url) for _ in range(2)]
        first = executor.submit(asyncio.run, get(stores[0]))
        while not made:
            time.sleep(0.001)
        sync(get(stores[1]))
        second.set()
        first.result()
        assert len(made) == 2
        assert server.wait_for_connections(1) == pool.statistics().filesystems == 1
    assert server.wait_for_connections(0) == 0
