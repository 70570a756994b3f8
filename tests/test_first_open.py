"""The first use of a store on a loop opens one filesystem and one session there, however many come first."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import aiohttp
import fsspec
import pytest
from fsspec.implementations.http import HTTPFileSystem
from fsspec.registry import _registry
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.servers import FolderServer, http_server
from tests.timing import Stopwatch

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


class WatchedFileSystem(HTTPFileSystem):
    """fsspec's HTTP filesystem under a protocol of its own, whose constructor is counted, may be slow and may fail."""

    built: ClassVar[list[WatchedFileSystem]]
    seconds: ClassVar[float] = 0.0
    failure: ClassVar[type[Exception] | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure("from the constructor")
        super().__init__(*args, **kwargs)
        self.built.append(self)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.replace("watched://", "http://")


@pytest.fixture
def watched() -> Iterator[type[WatchedFileSystem]]:
    """A class of its own for each test, registered as ``watched://``."""

    class Watched(WatchedFileSystem):
        built: ClassVar[list[WatchedFileSystem]] = []

    fsspec.register_implementation("watched", Watched, clobber=True)
    yield Watched
    _registry.pop("watched")


@pytest.fixture(scope="module")
def server() -> Iterator[FolderServer]:
    """A server of these tests alone, so that its connections can be counted."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def url(server: FolderServer, watched: type[WatchedFileSystem]) -> Iterator[str]:
    yield server.url.replace("http://", "watched://")
    assert server.wait_for_connections(0) == 0


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio logs what nobody has looked at: tasks that failed unseen, or were destroyed."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


async def longest_gap(awaitable: Awaitable[Any]) -> float:
    """Await something, and return the longest time, in seconds, for which the loop did nothing else meanwhile."""
    gaps = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.002)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    try:
        await awaitable
    finally:
        ticker.cancel()
    return max(gaps)


async def test_fifty_first_reads_open_one_filesystem_and_one_session(
    url: str, watched: type[WatchedFileSystem]
) -> None:
    """Fifty concurrent reads of a fresh store build one filesystem, and one aiohttp session."""
    sessions = []

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        sessions.append(aiohttp.ClientSession(**options))
        return sessions[-1]

    async with ManagedStore(url, storage_options={"get_client": get_client}) as store:
        assert await asyncio.gather(*(get(store) for _ in range(50))) == [CONTENT] * 50
        assert store.statistics().opened == 1
    assert len(watched.built) == 1
    assert len(sessions) == 1
    assert sessions[0].closed


@pytest.mark.parametrize("asked_for_before", [None, "fs", "path"])
async def test_a_session_factory_that_waits_is_called_once(url: str, asked_for_before: str | None) -> None:
    """A user's `get_client` that awaits something makes one session for fifty first reads, and it is closed."""
    sessions = []

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        await asyncio.sleep(0.02)
        sessions.append(aiohttp.ClientSession(**options))
        return sessions[-1]

    try:
        async with ManagedStore(url, storage_options={"get_client": get_client}) as store:
            if asked_for_before is not None:  # from synchronous code, which cannot wait
                getattr(store, asked_for_before)
            assert await asyncio.gather(*(get(store) for _ in range(50))) == [CONTENT] * 50
        assert [session.closed for session in sessions] == [True]
    finally:
        for session in sessions:
            await session.close()


def test_threads_that_come_first_on_zarrs_loop_open_one_session(url: str, watched: type[WatchedFileSystem]) -> None:
    """Eight threads that read a fresh store through zarr's loop at once build one filesystem and one session."""
    sessions = []

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        sessions.append(aiohttp.ClientSession(**options))
        return sessions[-1]

    answers: list[bytes] = []
    barrier = threading.Barrier(8)

    def read(store: ManagedStore) -> None:
        barrier.wait()
        answers.extend(sync(get(store)) for _ in range(5))

    with ManagedStore(url, storage_options={"get_client": get_client}) as store:
        run_threads([lambda: read(store)] * 8)
    assert answers == [CONTENT] * 40
    assert len(watched.built) == len(sessions) == 1


def test_each_loop_opens_one_filesystem_of_its_own(url: str, watched: type[WatchedFileSystem]) -> None:
    """Four threads with loops of their own and zarr's loop, all first at once, build five filesystems."""

    async def read_often(store: ManagedStore) -> None:
        assert await asyncio.gather(*(get(store) for _ in range(10))) == [CONTENT] * 10

    with ManagedStore(url) as store:
        on_own_loops: list[Callable[[], Any]] = [lambda: asyncio.run(read_often(store))] * 4
        on_zarrs_loop: list[Callable[[], Any]] = [lambda: sync(read_often(store))] * 4
        run_threads([*on_own_loops, *on_zarrs_loop])
        assert store.statistics().opened == 5
        assert store.statistics().loops == 1  # the four others took their sessions with them
    assert len(watched.built) == 5


async def test_a_slow_constructor_does_not_stop_the_loop(url: str, watched: type[WatchedFileSystem]) -> None:
    """While a constructor blocks for a second, the loop that waits for it goes on with everything else."""
    watched.seconds = 1.0
    async with ManagedStore(url) as store:
        assert await longest_gap(asyncio.gather(get(store), get(store), store.exists(KEY))) < 0.05
    assert len(watched.built) == 1


async def test_the_others_still_open_when_the_first_is_cancelled(url: str, watched: type[WatchedFileSystem]) -> None:
    """A reader that is cancelled while it opens the store takes nothing away from those who wait with it."""
    watched.seconds = 0.2
    async with ManagedStore(url) as store:
        first, second, third = (asyncio.create_task(get(store)) for _ in range(3))
        await asyncio.sleep(0.05)
        first.cancel()
        second.cancel()
        assert await third == CONTENT
        assert first.cancelled()
        assert second.cancelled()
    assert len(watched.built) == 1


async def test_a_store_opened_by_somebody_who_left_is_used_by_the_next(
    url: str, watched: type[WatchedFileSystem]
) -> None:
    """When all who waited are cancelled, the filesystem that was being built serves whoever comes next."""
    watched.seconds = 0.2
    async with ManagedStore(url) as store:
        only = asyncio.create_task(get(store))
        await asyncio.sleep(0.05)
        only.cancel()
        assert await get(store) == CONTENT
    assert len(watched.built) == 1


@pytest.mark.parametrize("failure", [ValueError, OSError, StopIteration])
async def test_everybody_who_waits_gets_the_error_of_the_constructor(
    url: str, watched: type[WatchedFileSystem], failure: type[Exception]
) -> None:
    """A constructor that raises fails every reader that waits, leaves nothing, and is tried again by the next use."""
    watched.seconds, watched.failure = 0.05, failure
    async with ManagedStore(url) as store:
        async with asyncio.timeout(5):
            errors = await asyncio.gather(*(get(store) for _ in range(10)), return_exceptions=True)
        assert all(any(isinstance(each, failure) for each in chain(error)) for error in errors)
        assert store.statistics().loops == 0
        watched.failure = None
        assert await get(store) == CONTENT
        assert store.statistics().forced == 0
    assert len(watched.built) == 1


async def test_a_constructor_that_fails_after_its_only_waiter_left_is_silent(
    url: str, watched: type[WatchedFileSystem]
) -> None:
    """Nobody waits for the failing constructor any more: no "exception was never retrieved" is logged for it."""
    watched.seconds, watched.failure = 0.1, ValueError
    async with ManagedStore(url) as store:
        only = asyncio.create_task(get(store))
        await asyncio.sleep(0.02)
        only.cancel()
        await asyncio.sleep(0.2)
        watched.failure = None
        assert await get(store) == CONTENT
    del only  # its traceback keeps the failed task
    gc.collect()  # asyncio complains when a failed task that nobody looked at is collected


async def test_closing_while_opening_refuses_those_who_wait(url: str, watched: type[WatchedFileSystem]) -> None:
    """A store that is closed while its filesystem is being built closes at once; the waiting readers are refused."""
    watched.seconds = 0.5
    store = ManagedStore(url)
    readers = [asyncio.create_task(get(store)) for _ in range(3)]
    await asyncio.sleep(0.05)
    watch = Stopwatch()
    await store.aclose()
    assert watch.took() < 0.2
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreClosedError] * 3
    assert store.statistics().loops == 0
    await asyncio.sleep(0.6)  # what comes of the constructor is discarded, and opens nothing
    assert [filesystem._session for filesystem in watched.built] == [None]


def test_closing_from_another_thread_while_zarrs_loop_opens(url: str, watched: type[WatchedFileSystem]) -> None:
    """The same from outside: threads that wait for zarr's loop to open the store are refused."""
    watched.seconds = 0.5
    store = ManagedStore(url)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            sync(get(store))
        except StoreClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    store.close()
    for thread in threads:
        thread.join(0.2)
    assert len(errors) == 3


async def test_the_filesystem_can_be_asked_for_while_it_is_being_opened(
    url: str, watched: type[WatchedFileSystem]
) -> None:
    """`.fs` within a coroutine opens at once; readers that were waiting use that filesystem."""
    watched.seconds = 0.1
    async with ManagedStore(url) as store:
        waiting = [asyncio.create_task(get(store)) for _ in range(3)]
        await asyncio.sleep(0.02)
        filesystem = store.fs
        assert await asyncio.gather(*waiting) == [CONTENT] * 3
        assert store.fs is filesystem
        assert filesystem._session is not None
        await asyncio.sleep(0.2)
        assert store.statistics().opened == 1
    # The one whose building was overtaken was never used.
    assert sum(each._session is not None for each in watched.built) == 1


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__


def run_threads(functions: list[Callable[[], Any]]) -> None:
    """Run each in a thread of its own, all at once, and raise what any of them raises."""
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
    if failures:
        raise failures[0]
