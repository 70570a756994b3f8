"""Requests that are in flight when a store is left: on a clean exit they finish, after an exception only writes do."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError as FutureCancelledError
from typing import Any

import pytest
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.conftest import write_hierarchy
from tests.servers import FolderServer, http_server
from tests.timing import Stopwatch

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"
LATENCY = 0.3


@pytest.fixture(scope="module")
def slow_server() -> Iterator[FolderServer]:
    """A server that takes its time for each answer."""
    with http_server(latency=LATENCY) as server:
        (server.root / KEY).write_bytes(CONTENT)
        write_hierarchy(str(server.root / "data.zarr"))
        yield server


@pytest.fixture
def server(slow_server: FolderServer, caplog: pytest.LogCaptureFixture) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection, and asyncio must have had nothing to complain of."""
    yield slow_server
    assert slow_server.wait_for_connections(0) == 0
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


async def in_flight(store: ManagedStore, server: FolderServer, count: int, before: int) -> None:
    """Wait until the server has received `count` requests more than the `before` it had."""
    while await asyncio.to_thread(server.requests) < before + count:
        await asyncio.sleep(0.005)


async def test_reads_finish_on_a_clean_exit(server: FolderServer) -> None:
    """Leaving `async with` waits for reads in flight; they return their data."""
    before = server.requests()
    async with ManagedStore(server.url) as store:
        reads = [asyncio.create_task(get(store)) for _ in range(5)]
        await in_flight(store, server, 5, before)
    assert all(read.done() for read in reads)
    assert await asyncio.gather(*reads) == [CONTENT] * 5
    assert store.statistics().forced == 0


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_what_is_kept_for_closing_is_little(how: str) -> None:
    """Of four seconds, a read may take three: what is kept to close in is a quarter of a short time, and no more."""
    with http_server(latency=3.0) as server:
        (server.root / KEY).write_bytes(CONTENT)
        store = ManagedStore(server.url, close_timeout=4)
        if how == "async":
            reading = asyncio.create_task(get(store))
            await in_flight(store, server, 1, 0)
            await store.aclose()
        else:
            reading = asyncio.create_task(asyncio.to_thread(sync, get(store)))
            await in_flight(store, server, 1, 0)
            await asyncio.to_thread(store.close)
        assert await reading == CONTENT


async def test_new_requests_are_refused_while_the_old_ones_finish(server: FolderServer) -> None:
    """While closing waits for a read, another read is refused, on this loop and on zarr's, by every handle."""
    store = ManagedStore(server.url)
    derived = store.with_read_only(True)
    before = server.requests()
    reading = asyncio.create_task(get(store))
    await in_flight(store, server, 1, before)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0.05)
    assert not closing.done()
    assert store.closed
    assert derived.closed
    assert [store.statistics().state, store.statistics().requests_in_flight] == ["closing", 1]
    assert [" closing " in repr(handle) for handle in (store, derived)] == [True, True]
    for handle in (store, derived):
        with pytest.raises(StoreClosedError):
            await get(handle)
        with pytest.raises(StoreClosedError):
            await asyncio.to_thread(sync, get(handle))
    assert await reading == CONTENT
    await closing
    assert [" closed " in repr(handle) for handle in (store, derived)] == [True, True]
    assert server.requests() == before + 1


async def test_reads_are_cut_off_at_once_after_an_exception(server: FolderServer) -> None:
    """An exception in the body answers at once: every waiting task gets StoreClosedError, and none is cancelled."""
    before = server.requests()
    body = RuntimeError("the body failed")
    with pytest.raises(RuntimeError) as caught:
        async with ManagedStore(server.url) as store:
            reads = [asyncio.create_task(get(store)) for _ in range(5)]
            await in_flight(store, server, 5, before)
            watch = Stopwatch()
            raise body
    assert watch.took() < LATENCY / 3
    assert caught.value is body
    assert getattr(body, "__notes__", []) == []
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreClosedError] * 5
    assert [read.cancelled() for read in reads] == [False] * 5
    assert [read.cancelling() for read in reads] == [0] * 5


def test_threads_are_cut_off_at_once_after_an_exception(server: FolderServer) -> None:
    """Threads that wait for zarr's loop, and coroutines on loops of other threads, get StoreClosedError too."""
    errors: list[BaseException] = []
    before = server.requests()

    def guarded(function: Any, *args: Any) -> None:
        try:
            function(*args)
        except (Exception, FutureCancelledError, asyncio.CancelledError) as error:
            errors.append(error)

    store = ManagedStore(server.url)
    threads = [threading.Thread(target=guarded, args=(sync, get(store))) for _ in range(3)]
    threads += [threading.Thread(target=guarded, args=(asyncio.run, get(store))) for _ in range(3)]
    with pytest.raises(KeyboardInterrupt), store:
        for thread in threads:
            thread.start()
        while server.requests() < before + 6:
            time.sleep(0.005)
        watch = Stopwatch()
        raise KeyboardInterrupt
    assert watch.took() < LATENCY / 2
    for thread in threads:
        thread.join(LATENCY)
    assert [type(error) for error in errors] == [StoreClosedError] * 6


def test_zarr_reads_that_are_cut_off_say_that_the_store_was_closed(server: FolderServer) -> None:
    """An array being read through zarr in another thread fails with StoreClosedError, naming the store."""
    errors: list[BaseException] = []
    with pytest.raises(ZeroDivisionError), ManagedStore(f"{server.url}/data.zarr") as store:
        array = zarr.open_group(store, mode="r")["numbers"]
        before = server.requests()

        def read() -> None:
            try:
                array[:]
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        while server.requests() < before + 4:
            time.sleep(0.005)
        raise ZeroDivisionError
    thread.join()
    assert [type(error) for error in errors] == [StoreClosedError]
    assert f"{server.url}/data.zarr" in str(errors[0])


@pytest.mark.parametrize("fails", [False, True], ids=["clean", "exception"])
async def test_a_write_always_finishes(server: FolderServer, fails: bool) -> None:
    """A write in flight ends whole, after an exception in the body too, while a read beside it is cut off."""
    before = server.requests()
    key = f"written-{fails}"
    raised = False
    try:
        async with ManagedStore(server.url) as store:
            writing = asyncio.create_task(store.set(key, cpu.Buffer.from_bytes(CONTENT)))
            reading = asyncio.create_task(get(store))
            await in_flight(store, server, 2, before)
            if fails:
                raise LookupError("the body failed")
    except LookupError:
        raised = True
    assert raised is fails
    await writing
    assert (server.root / key).read_bytes() == CONTENT
    read = (await asyncio.gather(reading, return_exceptions=True))[0]
    assert isinstance(read, StoreClosedError) if fails else read == CONTENT


def test_a_write_in_another_thread_finishes(server: FolderServer) -> None:
    """A thread that writes through zarr's loop returns normally when the block is left by an exception."""
    before = server.requests()
    with pytest.raises(LookupError), ManagedStore(server.url) as store:
        errors: list[BaseException] = []

        def write() -> None:
            try:
                sync(store.set("by-thread", cpu.Buffer.from_bytes(CONTENT)))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        while server.requests() < before + 1:
            time.sleep(0.005)
        raise LookupError
    thread.join()
    assert errors == []
    assert (server.root / "by-thread").read_bytes() == CONTENT


async def test_a_task_goes_on_after_its_request_was_cut_off(server: FolderServer) -> None:
    """The task whose request was cut off is not left half cancelled: it can go on awaiting, in a timeout too."""
    before = server.requests()
    store = ManagedStore(server.url)

    async def read_and_go_on() -> str:
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(10):
            with pytest.raises(StoreClosedError):
                await get(store)
            assert task.cancelling() == 0
            await asyncio.sleep(0.01)
        return "went on"

    tasks = [asyncio.create_task(read_and_go_on()) for _ in range(3)]
    await in_flight(store, server, 3, before)
    with pytest.raises(ZeroDivisionError):
        async with store:
            raise ZeroDivisionError
    assert await asyncio.gather(*tasks) == ["went on"] * 3


@pytest.mark.parametrize("user_is_first", [True, False])
async def test_a_cancellation_by_the_user_at_the_same_time_surfaces(server: FolderServer, user_is_first: bool) -> None:
    """A task that is cut off and cancelled in one turn ends cancelled: its cancellation is not swallowed."""
    before = server.requests()
    store = ManagedStore(server.url)
    reading = asyncio.create_task(get(store))
    await in_flight(store, server, 1, before)
    if user_is_first:
        reading.cancel()
    with pytest.raises(ZeroDivisionError):
        async with store:
            if not user_is_first:
                asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, reading.cancel)
            raise ZeroDivisionError
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert reading.cancelled()


async def test_a_task_that_was_cancelled_before_is_told_of_the_closing(server: FolderServer) -> None:
    """One that cleans up: the cancellation from before its request is not taken for one that came meanwhile."""
    before = server.requests()

    async def clean_up(store: ManagedStore) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(StoreClosedError):
                await get(store)

    with pytest.raises(ZeroDivisionError):
        async with ManagedStore(server.url) as store:
            cleaning = asyncio.create_task(clean_up(store))
            await asyncio.sleep(0)
            cleaning.cancel()
            await in_flight(store, server, 1, before)
            raise ZeroDivisionError
    await cleaning
    assert cleaning.cancelling() == 1


async def test_a_cut_off_read_inside_a_timeout_that_expires(server: FolderServer) -> None:
    """A timeout of the user's that expires in the turn of the cut-off is a TimeoutError, as without the store."""
    before = server.requests()
    store = ManagedStore(server.url)

    async def read_in_time() -> bytes:
        async with asyncio.timeout(None) as scope:
            scopes.append(scope)
            return await get(store)

    scopes: list[asyncio.Timeout] = []
    reading = asyncio.create_task(read_in_time())
    await in_flight(store, server, 1, before)
    scopes[0].reschedule(asyncio.get_running_loop().time() - 1)
    with pytest.raises(ZeroDivisionError):
        async with store:
            raise ZeroDivisionError
    # Whichever came first: an error that somebody asked for, never a bare CancelledError.
    answer = (await asyncio.gather(reading, return_exceptions=True))[0]
    assert isinstance(answer, TimeoutError | StoreClosedError)
    assert reading.cancelling() == 0


async def test_cut_off_requests_in_a_task_group(server: FolderServer) -> None:
    """A group of reads that is cut off ends in a group of StoreClosedErrors."""
    before = server.requests()
    store = ManagedStore(server.url)

    async def read_together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(get(store))

    together = asyncio.create_task(read_together())
    await in_flight(store, server, 4, before)
    with pytest.raises(ZeroDivisionError):
        async with store:
            raise ZeroDivisionError
    with pytest.raises(ExceptionGroup) as caught:
        await together
    assert {type(error) for error in caught.value.exceptions} == {StoreClosedError}


async def test_requests_of_a_derived_handle_that_is_closed_go_on(server: FolderServer) -> None:
    """Closing a derived handle closes it alone: reads in flight, by it and by its owner, finish."""
    before = server.requests()
    async with ManagedStore(server.url) as store:
        derived = store.with_read_only(True)
        reads = [asyncio.create_task(get(handle)) for handle in (store, derived)]
        await in_flight(store, server, 2, before)
        await derived.aclose()
        with pytest.raises(StoreClosedError):
            await get(derived)
        assert await asyncio.gather(*reads) == [CONTENT] * 2
        assert await get(store) == CONTENT


@pytest.mark.skipif(not hasattr(Store, "get_ranges"), reason="zarr 3.1 has no get_ranges")
async def test_ranges_that_are_cut_off_raise_the_closed_error_itself(server: FolderServer) -> None:
    """Not the group of exceptions that zarr makes of a failure in `get_ranges`."""
    store = ManagedStore(server.url)
    before = server.requests()

    async def read_ranges() -> None:
        async for _ in store.get_ranges(KEY, [None], prototype=PROTOTYPE):
            pass

    reading = asyncio.create_task(read_ranges())
    await in_flight(store, server, 1, before)
    with pytest.raises(LookupError):
        async with store:
            raise LookupError
    with pytest.raises(StoreClosedError):
        await reading
