"""One filesystem for each event loop: opened and closed there, whatever the order in which loops come and go."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import _get_loop, sync

from managed_store import ManagedStore, StoreClosedError
from tests.servers import FolderServer, http_server

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone, so that its connections can be counted."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def store(server: FolderServer, caplog: pytest.LogCaptureFixture) -> Iterator[ManagedStore]:
    """A store that is closed after the test, if the test has not; then the server must see no connection."""
    with ManagedStore(server.url) as store:
        yield store
    assert server.wait_for_connections(0) == 0
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


def loop_of(filesystem: Any) -> asyncio.AbstractEventLoop:
    """The loop that the filesystem's session was opened on."""
    loop: asyncio.AbstractEventLoop = filesystem._session._loop
    return loop


LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_loop_that_ends_takes_its_session_with_it(
    store: ManagedStore, server: FolderServer, new_loop: LoopFactory
) -> None:
    """Three runs over one store just work, and after each the server sees no connection, with the store open."""
    for _ in range(3):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(get(store)) == CONTENT
            assert server.connections() == 1
        assert server.wait_for_connections(0) == 0
        assert store.statistics().loops == 0
    assert (store.statistics().opened, store.statistics().closed, store.statistics().forced) == (3, 3, 0)
    assert not store.closed


async def test_the_session_is_opened_on_the_loop_that_uses_it(store: ManagedStore) -> None:
    """Asynchronous use opens on the running loop; synchronous use, also within a coroutine, on zarr's."""
    await get(store)
    sync(get(store))
    on_zarrs_loop = await asyncio.to_thread(lambda: store.fs)
    assert loop_of(store.fs) is asyncio.get_running_loop()
    assert loop_of(on_zarrs_loop) is _get_loop()
    assert store.statistics().loops == 2


def test_sync_then_async_then_sync(store: ManagedStore, server: FolderServer) -> None:
    """The session on zarr's loop is the same before and after a run on another loop."""
    assert sync(get(store)) == CONTENT
    before = store.fs
    assert asyncio.run(get(store)) == CONTENT
    assert store.fs is before
    assert sync(get(store)) == CONTENT
    assert server.wait_for_connections(1) == 1


def test_async_then_sync(server: FolderServer) -> None:
    """A store used first in a run, then through zarr's loop, is closed on both."""
    with ManagedStore(server.url) as store:
        assert asyncio.run(get(store)) == CONTENT
        assert sync(get(store)) == CONTENT
        assert server.wait_for_connections(1) == 1
    assert server.wait_for_connections(0) == 0
    assert store.statistics().closed == 2


@pytest.mark.parametrize("new_loop", LOOPS)
def test_mixed_use_within_one_coroutine(server: FolderServer, new_loop: LoopFactory) -> None:
    """Awaited, synchronous and threaded use of one store, all at once, closed by `async with`."""

    async def main() -> None:
        async with ManagedStore(server.url) as store:
            assert sync(get(store)) == CONTENT
            assert await get(store) == CONTENT
            reads = [get(store), asyncio.to_thread(sync, get(store)), asyncio.to_thread(asyncio.run, get(store))]
            assert await asyncio.gather(*reads) == [CONTENT] * 3
        assert store.statistics().closed == 3
        assert await asyncio.to_thread(server.wait_for_connections, 0) == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_paused_runner_goes_on_with_its_session(
    store: ManagedStore, server: FolderServer, new_loop: LoopFactory
) -> None:
    """Between two runs of one `Runner` the session stays open; the second run uses it."""
    opened = server.opened()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(get(store)) == CONTENT
        assert server.connections() == 1
        assert runner.run(get(store)) == CONTENT
        assert server.opened() == opened + 1
    assert store.statistics().forced == 0


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_closing_while_a_loop_is_paused_cuts_its_session_off(new_loop: LoopFactory, tls: bool) -> None:
    """A loop between two runs cannot be asked: leaving cuts its connections off at once, and the loop still works."""
    with http_server(tls=tls) as server:
        (server.root / KEY).write_bytes(CONTENT)
        options = {"ssl": server.ssl_context()} if tls else {}
        with asyncio.Runner(loop_factory=new_loop) as runner:
            with ManagedStore(server.url, storage_options=options) as store:
                assert runner.run(get(store)) == CONTENT
            assert server.wait_for_connections(0) == 0
            statistics = store.statistics()
            assert (statistics.loops, statistics.opened, statistics.closed, statistics.forced) == (0, 1, 0, 1)
            with pytest.raises(StoreClosedError):
                runner.run(get(store))
            runner.run(asyncio.sleep(0.01))  # what is left of the transports must not trip over their closed sockets


@pytest.mark.parametrize("in_use", [False, True], ids=["idle", "in use"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_loop_closed_as_it_is_after_its_session_was_cut_off(tls: bool, in_use: bool) -> None:
    """It never comes to tell its transports; collecting them warns of nothing, because their sockets are closed."""
    with http_server(tls=tls, latency=0.05) as server:
        (server.root / KEY).write_bytes(CONTENT)
        loop = asyncio.new_event_loop()
        options = {"ssl": server.ssl_context()} if tls else {}
        with ManagedStore(server.url, storage_options=options) as store:
            assert loop.run_until_complete(get(store)) == CONTENT
            reading = loop.create_task(get(store)) if in_use else None
            loop.run_until_complete(asyncio.sleep(0.02))
        assert server.wait_for_connections(0) == 0
        if reading is not None:
            with pytest.raises(StoreClosedError):
                loop.run_until_complete(reading)
        loop.close()
        del loop, reading
        gc.collect()


# Not on uvloop: its `close()` with a transport open never returns under pytest, with or without this package.
def test_a_loop_closed_without_its_generators_is_swept(store: ManagedStore, server: FolderServer) -> None:
    """`loop.close()` alone leaves a dead session; the next open on any loop cuts it off."""
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(get(store)) == CONTENT
    loop.close()
    assert asyncio.run(get(store)) == CONTENT
    assert server.wait_for_connections(0) == 0
    assert store.statistics().loops == 0


def test_closing_after_a_loop_was_closed_without_its_generators(server: FolderServer) -> None:
    """Leaving the store cuts off what a closed loop left behind."""
    with ManagedStore(server.url) as store:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(get(store)) == CONTENT
        loop.close()
    assert server.wait_for_connections(0) == 0


def test_a_loop_closed_while_a_coroutine_was_inside_the_block(
    server: FolderServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A coroutine that is abandoned inside `async with` leaves no connection when it is collected."""
    inside = threading.Event()

    async def main() -> None:
        async with ManagedStore(server.url) as store:
            await get(store)
            inside.set()
            await asyncio.Event().wait()

    async def until_inside() -> None:
        while not inside.is_set():
            await asyncio.sleep(0.001)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    loop.run_until_complete(until_inside())
    # The collector may come to the store before the coroutine that is inside its block: then it is a forgotten one.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del task
        gc.collect()
    assert all("was never closed" in str(warning.message) for warning in caught)
    caplog.clear()  # asyncio's own "Task was destroyed but it is pending!"
    assert server.wait_for_connections(0) == 0


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_use_by_a_generator_that_the_loop_shuts_down(store: ManagedStore, server: FolderServer, pause: float) -> None:
    """A user's async generator that still reads while its loop ends gets data or a refusal, and leaves nothing."""
    answers: list[object] = []

    async def numbers() -> AsyncIterator[bytes]:
        try:
            yield await get(store)
        finally:
            await asyncio.sleep(pause)
            try:
                answers.append(await get(store))
            except StoreClosedError as error:
                answers.append(error)

    kept = []

    async def main() -> None:
        kept.append(numbers())
        assert await anext(kept[0]) == CONTENT

    asyncio.run(main())
    assert len(answers) == 1
    assert server.wait_for_connections(0) == 0
    assert store.statistics().loops == 0


def test_a_run_that_is_left_with_reads_under_way(store: ManagedStore, server: FolderServer) -> None:
    """Tasks that a run leaves behind are cancelled by it as any others, and the session is closed with the loop."""
    tasks = []

    async def main() -> None:
        tasks.extend(asyncio.create_task(get(store)) for _ in range(20))
        await tasks[0]

    asyncio.run(main())
    assert all(task.cancelled() or task.result() == CONTENT for task in tasks)
    assert server.wait_for_connections(0) == 0


@pytest.mark.parametrize("turns", range(10))
def test_closing_while_a_loop_ends(server: FolderServer, turns: int) -> None:
    """Another thread closes the store when the run has a few turns left: it is closed by the one or by the other."""
    store = ManagedStore(server.url)
    closer = threading.Thread(target=store.close)

    async def main() -> None:
        await get(store)
        closer.start()
        time.sleep(0.05)  # blocks this loop, so that the request to close waits in its queue
        for _ in range(turns):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert server.wait_for_connections(0) == 0
    closer.join()
    assert store.statistics().loops == 0


def test_closing_while_loops_end_by_chance(server: FolderServer) -> None:
    """The same without a schedule: neither thread waits for the other, and nothing is left."""

    async def main(store: ManagedStore, read_once: threading.Event) -> None:
        try:
            await get(store)
            read_once.set()
            await get(store)
        except StoreClosedError:
            pass

    for _ in range(40):
        read_once = threading.Event()
        store = ManagedStore(server.url)
        thread = threading.Thread(target=asyncio.run, args=[main(store, read_once)])
        thread.start()
        read_once.wait()
        store.close()
        thread.join()
        assert store.statistics().loops == 0
    assert server.wait_for_connections(0) == 0
