"""Every way out of the block: the body's exception always wins, and nothing keeps a store from closing."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StoreCloseError
from tests.footprint import Footprint
from tests.servers import FolderServer, http_server

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


@pytest.fixture(scope="module")
def slow_server() -> Iterator[FolderServer]:
    """A server that takes its time for each answer, so that closing has something to wait for."""
    with http_server(latency=0.3) as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture(scope="module")
def hung_server() -> Iterator[FolderServer]:
    """A server that never answers."""
    with http_server(latency=3600) as server:
        yield server


@pytest.fixture
def hung(hung_server: FolderServer) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection."""
    yield hung_server
    assert hung_server.wait_for_connections(0) == 0


@pytest.fixture
def server(slow_server: FolderServer, caplog: pytest.LogCaptureFixture) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection, and nothing must have been logged."""
    yield slow_server
    assert slow_server.wait_for_connections(0) == 0
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


async def in_flight(store: ManagedStore) -> None:
    """Wait until a request of the store is in flight."""
    while not store.statistics().requests_in_flight:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(3), StoreClosedError("their own")])
def test_the_exception_of_the_body_comes_through(server: FolderServer, error: BaseException) -> None:
    """What the body of `with` raises comes out as the very same object, and the store is closed."""
    with pytest.raises(type(error)) as caught, ManagedStore(server.url) as store:
        sync(get(store))
        raise error
    assert caught.value is error
    assert getattr(error, "__notes__", []) == []
    assert error.__context__ is None
    assert store.statistics().loops == 0


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError("their own")])
async def test_the_exception_of_an_asynchronous_body_comes_through(server: FolderServer, error: BaseException) -> None:
    """The same for `async with`."""
    with pytest.raises(type(error)) as caught:
        async with ManagedStore(server.url) as store:
            await get(store)
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert store.statistics().loops == 0


def blocked_loop(store: ManagedStore, seconds: float) -> threading.Thread:
    """Start a thread whose loop has a session of the store and is then blocked for a while."""
    opened = threading.Event()

    async def main() -> None:
        await get(store)
        opened.set()
        time.sleep(seconds)  # it is meant to block
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    opened.wait()
    return thread


def test_what_went_wrong_while_closing_is_noted_on_the_exception_of_the_body(server: FolderServer) -> None:
    """When closing fails too, the body's exception comes out with a note that says so."""
    error = ValueError("the body failed")
    with (
        pytest.raises(ValueError, match="the body failed") as caught,
        ManagedStore(server.url, close_timeout=0.1) as store,
    ):
        thread = blocked_loop(store, 0.4)
        raise error
    assert caught.value is error
    assert len(error.__notes__) == 1
    assert server.url in error.__notes__[0]
    thread.join()


async def test_what_went_wrong_while_closing_asynchronously_is_noted_too(server: FolderServer) -> None:
    """The same for `async with`; alone, the failure is raised."""
    error = ValueError("the body failed")
    with pytest.raises(ValueError, match="the body failed") as caught:
        async with ManagedStore(server.url, close_timeout=0.1) as store:
            thread = await asyncio.to_thread(blocked_loop, store, 0.4)
            raise error
    assert caught.value is error
    assert server.url in error.__notes__[0]
    await asyncio.to_thread(thread.join)
    with pytest.raises(StoreCloseError) as alone:
        async with ManagedStore(server.url, close_timeout=0.1) as store:
            thread = await asyncio.to_thread(blocked_loop, store, 0.4)
    assert len(alone.value.left_open) == 1
    await asyncio.to_thread(thread.join)


async def inside(server: FolderServer, entered: asyncio.Event, stores: list[ManagedStore]) -> None:
    """Enter a store with sessions on two loops, and stay inside with a read in flight."""
    async with ManagedStore(server.url) as store:
        stores.append(store)
        await get(store)
        await asyncio.to_thread(sync, get(store))
        entered.set()
        await asyncio.Event().wait()


async def test_a_cancelled_body_closes_the_store(server: FolderServer) -> None:
    """A task that is cancelled inside the block closes the store and ends cancelled."""
    before = Footprint.now().sockets
    entered, stores = asyncio.Event(), []
    task = asyncio.create_task(inside(server, entered, stores))
    await entered.wait()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert stores[0].statistics().closed == 2
    assert Footprint.now().sockets == before


async def test_cancellations_while_closing_do_not_keep_it_from_closing(server: FolderServer) -> None:
    """Cancelled twice while `aclose` waits: it lets only writes finish, closes everything, and is cancelled then."""
    store = ManagedStore(server.url)
    await get(store)
    await asyncio.to_thread(sync, get(store))
    reading = asyncio.create_task(get(store))
    writing = asyncio.create_task(store.set("written", PROTOTYPE.buffer.from_bytes(CONTENT)))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0.05)
    closing.cancel("first")
    await asyncio.sleep(0.02)
    closing.cancel("second")
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert closing.cancelled()
    assert closing.cancelling() == 2
    with pytest.raises(StoreClosedError, match="before the answer"):
        await reading
    await writing
    assert (server.root / "written").read_bytes() == CONTENT
    assert store.statistics().loops == 0
    assert store.statistics().closed == 2


async def test_a_cancellation_while_leaving_keeps_the_exception_of_the_body(server: FolderServer) -> None:
    """Cancelled while leaving after an exception: that comes out as the very same object, and a note says so."""
    error = ValueError("the body failed")
    store = ManagedStore(server.url)

    async def main() -> None:
        async with store:
            # A write, for leaving to wait for.
            tasks.append(asyncio.create_task(store.set("key", PROTOTYPE.buffer.from_bytes(CONTENT))))
            await asyncio.sleep(0.1)
            raise error

    tasks: list[asyncio.Task[Any]] = []
    task = asyncio.create_task(main())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(ValueError, match="the body failed") as caught:
        await task
    assert caught.value is error
    assert "cancelled" in error.__notes__[0]
    await tasks[0]
    assert store.statistics().loops == 0


async def test_a_timeout_around_the_block(hung: FolderServer) -> None:
    """`asyncio.timeout` around the block is a TimeoutError, whether it strikes in the body or while leaving."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), ManagedStore(hung.url) as in_body:
            await asyncio.gather(get(in_body), get(in_body))
    assert in_body.statistics().loops == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout, ManagedStore(hung.url) as while_leaving:
            reading = asyncio.create_task(get(while_leaving))
            await in_flight(while_leaving)
            timeout.reschedule(asyncio.get_running_loop().time() + 0.1)
    assert while_leaving.statistics().loops == 0
    with pytest.raises(StoreClosedError, match="before the answer"):  # whoever is cancelled waits for no read
        await reading
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_anyio_cancel_scope_around_the_block(hung: FolderServer) -> None:
    """anyio cancels again and again until the scope is left: closing is bounded, complete, and ends in the scope."""
    with anyio.move_on_after(0.1) as in_body:
        async with ManagedStore(hung.url) as first:
            await get(first)
    assert in_body.cancelled_caught
    assert first.statistics().loops == 0
    with anyio.CancelScope() as while_leaving:
        async with ManagedStore(hung.url) as second:
            reading = asyncio.create_task(get(second))
            await in_flight(second)
            while_leaving.deadline = anyio.current_time() + 0.1
    assert while_leaving.cancelled_caught
    assert second.statistics().loops == 0
    with pytest.raises(StoreClosedError, match="before the answer"):
        await reading
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_many_stores_on_one_exit_stack(server: FolderServer) -> None:
    """Nested and overlapping stores over one URL are closed one by one, whatever the body raised."""
    stores = [ManagedStore(server.url) for _ in range(4)]
    with pytest.raises(LookupError):
        async with AsyncExitStack() as stack:
            for store in stores:
                await stack.enter_async_context(store)
            await asyncio.gather(*map(get, stores))
            await stores[1].aclose()
            with pytest.raises(StoreClosedError):
                await get(stores[1])
            assert await get(stores[2]) == CONTENT
            raise LookupError
    assert [store.statistics().loops for store in stores] == [0] * 4


async def test_a_block_inside_a_generator_that_is_not_exhausted(server: FolderServer) -> None:
    """An async generator with a store inside closes it when it is closed early."""
    stores = []

    async def values() -> AsyncIterator[bytes]:
        async with ManagedStore(server.url) as store:
            stores.append(store)
            while True:
                yield await get(store)

    generator = values()
    assert await anext(generator) == CONTENT
    await generator.aclose()  # type: ignore[attr-defined]
    assert stores[0].statistics().loops == 0


def test_an_exit_while_another_exception_is_being_handled(server: FolderServer) -> None:
    """Leaving cleanly within an `except` block does not take that exception for the body's."""
    try:
        raise KeyError("being handled")
    except KeyError:
        with ManagedStore(server.url) as store:
            assert sync(get(store)) == CONTENT
        assert isinstance(sys.exception(), KeyError)
    assert store.statistics().forced == 0
