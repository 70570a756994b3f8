"""Closing is final, idempotent and safe: from several threads, tasks and loops, and on the very loop of a session."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import _get_loop, sync

from managed_store import ManagedStore, StoreClosedError, StoreCloseError, _owners
from tests.footprint import NOTHING, Footprint
from tests.servers import FolderServer, http_server
from tests.timing import Stopwatch

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection, and nothing must have been logged."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server
        assert server.wait_for_connections(0) == 0
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


def in_threads(functions: list[Callable[[], Any]]) -> list[BaseException]:
    """Run each function in a thread of its own, all at once; return what they raised."""
    failures: list[BaseException] = []

    def guarded(function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_use_after_close_names_the_redacted_url(server: FolderServer) -> None:
    """The error says which store, without its secrets, and what to do; and opens nothing."""
    url = server.url.replace("http://", "http://user:hunter2@") + "/data.zarr?signature=hunter3"
    store = ManagedStore(url)
    store.close()
    opened = server.opened()
    for use in (lambda: sync(get(store)), lambda: asyncio.run(get(store)), lambda: store.fs, store.__enter__):
        with pytest.raises(StoreClosedError) as caught:
            use()
        assert f"***@127.0.0.1:{server.port}/data.zarr" in str(caught.value)
        assert "new ManagedStore" in str(caught.value)
        assert "hunter" not in str(caught.value)
    assert server.opened() == opened
    assert store.statistics().loops == 0


def test_a_refused_use_is_not_counted_as_a_session(server: FolderServer) -> None:
    """Use of a closed store through a derived handle changes nothing in the statistics: nothing was opened."""
    store = ManagedStore(server.url)
    derived = store.with_read_only(True)
    store.close()
    for _ in range(3):
        with pytest.raises(StoreClosedError):
            sync(get(derived))
    statistics = store.statistics()
    assert (statistics.opened, statistics.closed, statistics.forced) == (0, 0, 0)


def test_closing_a_store_that_was_never_used_opens_nothing(server: FolderServer) -> None:
    """Neither way of leaving opens a filesystem, a session or a connection."""
    opened, before = server.opened(), Footprint.now()
    with ManagedStore(server.url) as first:
        pass

    async def main() -> ManagedStore:
        async with ManagedStore(server.url) as store:
            pass
        return store

    second = asyncio.run(main())
    for store in (first, second):
        assert store.closed
        assert store.statistics().opened == 0
    assert server.opened() == opened
    assert before.grown_by(Footprint.now()) == NOTHING


def test_closing_again_is_harmless(server: FolderServer) -> None:
    """Closing in every way after closing does nothing, also while the block has yet to be left."""
    with ManagedStore(server.url) as store:
        sync(get(store))
        store.close()
        store.close()
    store.close()
    asyncio.run(store.aclose())
    assert store.statistics().closed == 1


def test_two_threads_close_at_once(server: FolderServer) -> None:
    """Eight threads close one store with sessions on two loops: all return, when it is closed and not before."""
    store = ManagedStore(server.url)
    with asyncio.Runner() as runner:
        runner.run(get(store))
        sync(get(store))
        seen: list[int] = []

        def close() -> None:
            store.close()
            seen.append(store.statistics().loops)

        assert in_threads([close] * 8) == []
    assert seen == [0] * 8


async def test_two_tasks_close_at_once(server: FolderServer) -> None:
    """Tasks that close one store together all return when it is closed."""
    store = ManagedStore(server.url)
    await get(store)
    await asyncio.to_thread(sync, get(store))
    await asyncio.gather(*(store.aclose() for _ in range(5)))
    assert store.statistics().loops == 0
    assert store.statistics().closed == 2


def test_a_thread_closes_while_loops_read(server: FolderServer) -> None:
    """Readers on their own loops and on zarr's end with StoreClosedError when another thread closes the store."""
    store = ManagedStore(server.url)

    async def read_for_ever() -> None:
        with pytest.raises(StoreClosedError):
            while True:
                assert await get(store) == CONTENT

    def close_soon() -> None:
        time.sleep(0.1)
        store.close()

    readers = [lambda: asyncio.run(read_for_ever())] * 3 + [lambda: sync(read_for_ever())] * 3
    assert in_threads([*readers, close_soon]) == []
    assert store.statistics().loops == 0


async def test_leaving_with_on_the_own_loop_does_not_block(server: FolderServer) -> None:
    """`with` within a coroutine returns at once and cuts off; a few turns of the loop later no socket is left."""
    before = Footprint.now().sockets
    with ManagedStore(server.url) as store:
        await asyncio.gather(*(get(store) for _ in range(20)))
        assert Footprint.now().sockets > before
        watch = Stopwatch()
    assert watch.took() < 0.05
    for _ in range(5):
        await asyncio.sleep(0)
    assert Footprint.now().sockets == before
    with pytest.raises(StoreClosedError):
        await get(store)


async def test_leaving_with_on_the_own_loop_cuts_reads_off() -> None:
    """A task of the same loop whose read is in flight gets StoreClosedError: nobody can wait for it."""
    with http_server(latency=0.3) as server:
        (server.root / KEY).write_bytes(CONTENT)
        with ManagedStore(server.url) as store:
            reads = [asyncio.create_task(get(store)) for _ in range(3)]
            while server.requests() < 3:
                await asyncio.sleep(0.01)
        answers = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreClosedError] * 3
        assert await asyncio.to_thread(server.wait_for_connections, 0) == 0


def test_leaving_with_as_the_last_thing_of_a_loop(server: FolderServer) -> None:
    """The block ends with the run itself: the few turns that `asyncio.run` still gives are enough."""

    async def main() -> None:
        with ManagedStore(server.url) as store:
            await get(store)

    asyncio.run(main())
    assert server.wait_for_connections(0) == 0


def test_leaving_with_as_the_last_thing_of_a_loop_that_gives_no_turn(
    server: FolderServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop that is closed right after the block: closing the store once more, from outside, ends its sockets."""
    store = ManagedStore(server.url)

    async def main() -> None:
        with store:  # noqa: F821 - deleted below, so that only the coroutine holds it
            await get(store)  # noqa: F821

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    store.close()
    assert server.wait_for_connections(0) == 0
    assert store.statistics().loops == 0
    # A loop that is closed with a task pending: asyncio says so, and rightly.
    del store
    gc.collect()
    caplog.clear()


async def test_leaving_with_on_a_loop_other_than_that_of_the_session(server: FolderServer) -> None:
    """`with` within a coroutine around synchronous use waits for zarr's loop, which closes gracefully."""
    with ManagedStore(server.url) as store:
        sync(get(store))
    assert store.statistics().closed == 1
    assert store.statistics().forced == 0


def test_closing_from_a_callback_on_zarrs_loop(server: FolderServer) -> None:
    """A callback on zarr's own loop can close the store without blocking that loop."""
    store = ManagedStore(server.url)
    sync(get(store))
    took: list[float] = []

    def close() -> None:
        watch = Stopwatch()
        store.close()
        took.append(watch.took())

    _get_loop().call_soon_threadsafe(close)
    assert server.wait_for_connections(0) == 0
    assert took[0] < 0.05
    sync(asyncio.sleep(0.02))
    assert store.statistics().loops == 0


def test_two_loops_close_their_common_store_at_once(server: FolderServer) -> None:
    """Two coroutines on two loops leave `with` together: neither waits for the loop that the other one blocks."""
    store = ManagedStore(server.url, close_timeout=1.0)
    barrier = threading.Barrier(2)
    took: list[float] = []

    async def main() -> None:
        await get(store)
        barrier.wait()
        watch = Stopwatch()
        store.close()
        took.append(watch.took())
        await asyncio.sleep(0.05)

    assert in_threads([lambda: asyncio.run(main())] * 2) == []
    assert max(took) < 0.5


def test_a_closed_store_refuses_a_loop_that_has_not_noticed(server: FolderServer) -> None:
    """A loop that was blocked while the store was closed refuses its next request, by a derived handle too."""
    store = ManagedStore(server.url, close_timeout=0.2)
    derived = store.with_read_only(True)
    ready, closed = threading.Event(), threading.Event()

    async def main() -> None:
        await get(derived)
        ready.set()
        closed.wait(5)  # blocks this loop
        with pytest.raises(StoreClosedError):
            await get(store)
        with pytest.raises(StoreClosedError):
            await get(derived)

    def close() -> None:
        ready.wait(5)
        with pytest.raises(StoreCloseError):
            store.close()
        closed.set()

    assert in_threads([lambda: asyncio.run(main()), close]) == []
    assert store.statistics().loops == 0


def test_closing_a_hundred_pooled_connections_takes_milliseconds() -> None:
    """Leaving a store with a hundred idle connections takes under 20 ms, and leaves no socket."""
    with http_server(latency=0.2) as server:
        (server.root / KEY).write_bytes(CONTENT)
        before = Footprint.now().sockets

        async def main() -> float:
            async with ManagedStore(server.url) as store:
                await asyncio.gather(*(get(store) for _ in range(100)))
                assert Footprint.now().sockets == before + 100
                watch = Stopwatch()
            took = watch.took()
            assert Footprint.now().sockets == before
            assert store.statistics().forced == 0
            return took

        # The best of three: other programs on the machine only ever make it slower.
        assert min(asyncio.run(main()) for _ in range(3)) < 0.02
        assert server.wait_for_connections(0) == 0


def test_a_store_that_another_thread_closes_while_a_session_is_made(
    server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one race of owners, forced: the session is entered after the closing thread has looked for sessions."""

    class LateSession(_owners.Session):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            thread = threading.Thread(target=store.close)
            thread.start()
            thread.join()

    monkeypatch.setattr(_owners, "Session", LateSession)
    store = ManagedStore(server.url)
    with pytest.raises(StoreClosedError):
        sync(get(store))
    assert store.statistics().loops == 0
    assert store.statistics().state == "closed"
