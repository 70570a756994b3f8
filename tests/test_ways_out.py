"""Ways out of a block that are no straight line: finalizers, stacks, overlapping stores, paused and foreign loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import _get_loop, sync

from managed_store import ManagedStore, StoreClosedError
from tests.footprint import Footprint
from tests.programs import CONTENT, KEY
from tests.servers import FolderServer, http_server
from tests.timing import Stopwatch

PROTOTYPE = default_buffer_prototype()


@pytest.fixture(scope="module")
def own_server() -> Iterator[FolderServer]:
    """A server that takes a moment for each answer, so that reads are in flight for as long."""
    with http_server(latency=0.1) as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def server(own_server: FolderServer, caplog: pytest.LogCaptureFixture) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection, and nothing must have been logged."""
    yield own_server
    assert own_server.wait_for_connections(0) == 0
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


# Finalizers


class Dataset:
    """What users write: an object that closes its store when it is collected."""

    def __init__(self, store: ManagedStore, took: list[float]) -> None:
        self.store = store
        self.took = took
        self.itself = self  # only the garbage collector ends it

    def __del__(self) -> None:
        watch = Stopwatch()
        self.store.close()
        self.took.append(watch.took())


def collect() -> None:
    gc.collect()


def collect_on_zarrs_loop() -> None:
    async def collect() -> None:
        gc.collect()

    sync(collect())


def collect_in_a_thread() -> None:
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


@pytest.mark.parametrize("where", [collect, collect_on_zarrs_loop, collect_in_a_thread])
def test_close_from_a_finalizer(server: FolderServer, where: Callable[[], None]) -> None:
    """`close` in `__del__` closes on whatever thread the collector runs: on zarr's own it does not wait for itself."""
    took: list[float] = []
    gc.collect()
    dataset = Dataset(ManagedStore(server.url), took)
    store = dataset.store
    sync(get(store))
    del dataset
    where()
    assert len(took) == 1
    assert took[0] < 0.5
    assert server.wait_for_connections(0) == 0
    sync(asyncio.sleep(0.02))  # where zarr's loop could not be waited for
    assert (store.closed, store.statistics().loops) == (True, 0)


async def test_close_from_a_finalizer_on_the_callers_loop(server: FolderServer) -> None:
    """Collected on the loop that owns the session, with reads in flight: they are cut off, and nobody waits."""
    took: list[float] = []
    dataset = Dataset(ManagedStore(server.url), took)
    store = dataset.store
    await get(store)
    readings = [asyncio.create_task(get(store)) for _ in range(3)]
    await asyncio.sleep(0.03)
    del dataset
    gc.collect()
    assert took[0] < 0.05
    answers = await asyncio.gather(*readings, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreClosedError] * 3
    await asyncio.sleep(0.01)
    assert store.statistics().loops == 0


def test_close_from_a_finalizer_while_a_read_of_the_same_thread_waits(server: FolderServer) -> None:
    """The collector runs on zarr's loop while the main thread reads from another store: that read is not disturbed."""
    took: list[float] = []
    gc.collect()
    dataset = Dataset(ManagedStore(server.url), took)
    store = dataset.store  # else it is collected together with it, in any order, and warns of having been forgotten
    sync(get(store))
    with ManagedStore(server.url) as other:
        del dataset
        _get_loop().call_later(0.05, gc.collect)
        assert sync(get(other)) == CONTENT
        assert (len(took), store.closed) == (1, True)
        assert server.wait_for_connections(1) == 1


# Several stores at once


def test_stores_that_overlap(server: FolderServer) -> None:
    """Closed in another order than opened, over one URL: each takes its own connection with it, and no other."""
    first, second, third = (ManagedStore(server.url) for _ in range(3))
    opened = server.opened()
    for store in (first, second, third):
        store.__enter__()
        sync(get(store))
    for number, store in enumerate((first, third, second)):
        store.__exit__(None, None, None)
        assert server.wait_for_connections(2 - number) == 2 - number
    assert server.opened() == opened + 3
    assert [each.statistics().forced for each in (first, second, third)] == [0, 0, 0]


def test_a_store_is_entered_in_itself(server: FolderServer) -> None:
    """The inner block ends the store, and the outer one is left in peace."""
    with ManagedStore(server.url) as store:
        with store:
            sync(get(store))
        assert store.closed
        with pytest.raises(StoreClosedError), store:
            pytest.fail("entered a closed store")
    assert store.statistics().closed == 1


async def test_a_synchronous_stack_within_an_asynchronous_one(server: FolderServer) -> None:
    """`ExitStack` and `AsyncExitStack` mixed, with stores on both loops, left by an exception: it comes out itself."""
    error = ValueError("the body failed")
    before = Footprint.now().sockets
    stores = [ManagedStore(server.url) for _ in range(4)]
    with pytest.raises(ValueError, match="the body failed") as caught:
        async with AsyncExitStack() as outer:
            inner = outer.enter_context(ExitStack())
            await outer.enter_async_context(stores[0])
            inner.enter_context(stores[1])
            outer.push_async_callback(stores[2].aclose)
            inner.callback(stores[3].close)
            await asyncio.gather(*map(get, stores))
            await asyncio.to_thread(lambda: [sync(get(store)) for store in stores])
            assert [store.statistics().loops for store in stores] == [2] * 4
            raise error
    assert caught.value is error
    assert getattr(error, "__notes__", []) == []
    await asyncio.sleep(0.01)  # what was closed by `with` on the very loop that runs takes a few turns of it
    assert [store.statistics().loops for store in stores] == [0] * 4
    assert Footprint.now().sockets == before


async def test_with_on_the_own_loop_and_reads_in_flight_on_two(server: FolderServer) -> None:
    """`with` in a coroutine: the reads of this loop's other tasks are cut off, those on zarr's loop may finish."""
    with ManagedStore(server.url) as store:
        await asyncio.gather(get(store), asyncio.to_thread(sync, get(store)))
        here = [asyncio.create_task(get(store)) for _ in range(2)]
        there = [asyncio.create_task(asyncio.to_thread(sync, get(store))) for _ in range(2)]
        while store.statistics().requests_in_flight < 4:
            await asyncio.sleep(0.005)
    assert [type(answer) for answer in await asyncio.gather(*here, return_exceptions=True)] == [StoreClosedError] * 2
    assert await asyncio.gather(*there) == [CONTENT] * 2
    await asyncio.sleep(0.01)
    assert store.statistics().loops == 0


# Loops that pause, and loops of others


def test_a_runner_that_is_used_again_and_again(server: FolderServer) -> None:
    """One `Runner` in several pieces, one session; closed while it is paused, and it still runs afterwards."""
    opened = server.opened()
    store = ManagedStore(server.url)
    with asyncio.Runner() as runner:
        for _ in range(3):
            assert runner.run(get(store)) == CONTENT
        assert server.opened() == opened + 1
        store.close()
        assert server.wait_for_connections(0) == 0
        assert store.statistics().loops == 0
        with pytest.raises(StoreClosedError):
            runner.run(get(store))
        with ManagedStore(server.url) as another:
            assert runner.run(get(another)) == CONTENT
    assert server.wait_for_connections(0) == 0


def test_a_runner_that_is_paused_with_a_read_in_flight(server: FolderServer) -> None:
    """A task that was left reading between two runs ends with StoreClosedError in the next one."""

    async def begin() -> asyncio.Task[bytes]:
        reading = asyncio.create_task(get(store))
        await asyncio.sleep(0.03)
        return reading

    async def outcome(reading: asyncio.Task[bytes]) -> object:
        return (await asyncio.gather(reading, return_exceptions=True))[0]

    store = ManagedStore(server.url)
    with asyncio.Runner() as runner:
        runner.run(get(store))
        reading = runner.run(begin())
        watch = Stopwatch()
        store.close()
        assert watch.took() < 0.5
        assert server.wait_for_connections(0) == 0
        assert isinstance(runner.run(outcome(reading)), StoreClosedError)


@contextlib.contextmanager
def loop_of_a_fixture() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop as the fixtures of pytest plugins make it: run for each step, paused in between, ended in the end."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize("tears_down", ["with the loop", "aclose", "close"])
def test_a_fixture_that_holds_a_store(server: FolderServer, tears_down: str) -> None:
    """An async fixture opens, the tests read, each in a run of its own; and there are three ways to tear it down."""

    async def fixture() -> AsyncIterator[ManagedStore]:
        async with ManagedStore(server.url) as store:
            await get(store)
            yield store

    async def tear_down(generator: AsyncIterator[ManagedStore]) -> None:
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    with loop_of_a_fixture() as loop:
        generator = fixture()
        store: ManagedStore = loop.run_until_complete(anext(generator))
        for _ in range(2):
            assert loop.run_until_complete(get(store)) == CONTENT
        if tears_down == "aclose":
            loop.run_until_complete(tear_down(generator))
        elif tears_down == "close":
            store.close()
        assert server.wait_for_connections(1 if tears_down == "with the loop" else 0) is not None
    assert server.wait_for_connections(0) == 0
    assert store.statistics().loops == 0


def test_generators_that_read_while_their_loop_shuts_down(server: FolderServer) -> None:
    """Many at once, with a store outside and one inside each: they end with data or a refusal, and all is closed."""
    answers: list[object] = []
    outside = ManagedStore(server.url)

    async def values() -> AsyncIterator[bytes]:
        async with ManagedStore(server.url) as inside:
            try:
                yield await get(inside)
            finally:
                answers.extend(await asyncio.gather(get(inside), get(outside), return_exceptions=True))

    kept: list[Any] = []

    async def main() -> None:
        await get(outside)
        kept.extend(values() for _ in range(5))
        await asyncio.gather(*map(anext, kept))

    asyncio.run(main())
    assert len(answers) == 10
    assert all(answer == CONTENT or isinstance(answer, StoreClosedError) for answer in answers)
    assert server.wait_for_connections(0) == 0
    assert asyncio.run(get(outside)) == CONTENT
    outside.close()


@pytest.mark.parametrize("then", ["close", "another loop"])
def test_a_loop_closed_with_a_read_in_flight(server: FolderServer, caplog: pytest.LogCaptureFixture, then: str) -> None:
    """Closed without `shutdown_asyncgens`, and never to run again: closing, or use on another loop, sweeps it up."""
    store = ManagedStore(server.url)

    async def until_reading() -> None:
        await get(store)
        tasks.append(asyncio.create_task(get(store)))
        await asyncio.sleep(0.03)

    tasks: list[asyncio.Task[bytes]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(until_reading())
    loop.close()
    assert server.connections() == 1
    if then == "close":
        store.close()
    else:
        assert asyncio.run(get(store)) == CONTENT
    assert server.wait_for_connections(0) == 0
    store.close()
    assert store.statistics().loops == 0
    tasks.clear()
    gc.collect()
    caplog.clear()  # asyncio's own "Task was destroyed but it is pending!"
