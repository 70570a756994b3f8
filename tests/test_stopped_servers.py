"""A connection that breaks or hangs is an error, never "no such key"; and leaving the store comes back all the same."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, default_buffer_prototype

from managed_store import ManagedStore, StoreClosedError, StoreCloseError, StoreOpenError
from tests.every_backend import CONTENTS, backends, listed
from tests.stopping import Held, start_loops, stoppable
from tests.timing import at_most

PROTOTYPE = default_buffer_prototype()

# What zarr, xarray or a careful caller would take for "no such key".
LIKE_A_MISSING_KEY = (LookupError, ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError)

READ_BEFORE = "folder/small"
ASKED_FOR = "other/large"
CONTENT = CONTENTS[ASKED_FOR]


END = len(CONTENT)

# Each read, and the right answer to it.
READS: dict[str, tuple[Callable[[ManagedStore], Awaitable[Any]], Any]] = {
    "get": (lambda store: store.get(ASKED_FOR, PROTOTYPE), CONTENT),
    "get a range": (lambda store: store.get(ASKED_FOR, PROTOTYPE, RangeByteRequest(END - 9, END)), CONTENT[-9:]),
    "get an offset": (lambda store: store.get(ASKED_FOR, PROTOTYPE, OffsetByteRequest(END - 5)), CONTENT[-5:]),
    "get a suffix": (lambda store: store.get(ASKED_FOR, PROTOTYPE, SuffixByteRequest(3)), CONTENT[-3:]),
    "get nothing": (lambda store: store.get(ASKED_FOR, PROTOTYPE, RangeByteRequest(2, 2)), b""),
    "get_partial_values": (lambda store: store.get_partial_values(PROTOTYPE, [(ASKED_FOR, None)]), [CONTENT]),
    "exists": (lambda store: store.exists(ASKED_FOR), True),
    "getsize": (lambda store: store.getsize(ASKED_FOR), END),
    "getsize_prefix": (lambda store: store.getsize_prefix("other"), END),
    "is_empty": (lambda store: store.is_empty(""), False),
    "list": (lambda store: listed(store.list()), sorted(CONTENTS)),
    "list_prefix": (lambda store: listed(store.list_prefix("other/")), [ASKED_FOR]),
    "list_dir": (lambda store: listed(store.list_dir("other")), ["large"]),
}

PLAIN = ("http", "s3", "gs", "ftp", "sftp", "webdav", "webhdfs", "smb", "dir::http")
# These know a part of the answers without asking a server.
KNOWING = ("simplecache::http", "filecache::http", "blockcache::http", "simplecache::ftp", "zip::http", "tar::http")
KNOWING += ("reference::http",)


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs and gcsfs would try for half a minute: nothing but patience is tested by that."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr("gcsfs.retry.is_retriable", lambda error: False)
    start_loops()


async def use(store: ManagedStore, name: str, *, patience: float) -> Any:
    """What a read gives or raises: TimeoutError if it takes longer than `patience`, in seconds."""
    try:
        async with asyncio.timeout(patience):
            answer = await READS[name][0](store)
    except Exception as error:
        return error
    if isinstance(answer, list):
        return [each.to_bytes() if isinstance(each, Buffer) else each for each in answer]
    return answer.to_bytes() if isinstance(answer, Buffer) else answer


async def read_before(store: ManagedStore) -> None:
    """A first read, which is right."""
    answer = await store.get(READ_BEFORE, PROTOTYPE)
    assert answer is not None
    assert answer.to_bytes() == CONTENTS[READ_BEFORE]


async def wrong_answers(store: ManagedStore, backend: str) -> dict[str, str]:
    """The reads that say neither that something is wrong, nor what is right."""
    wrong = {}
    for name in READS:
        answer = await use(store, name, patience=5)
        if isinstance(answer, Exception):
            is_wrong = isinstance(answer, (*LIKE_A_MISSING_KEY, StoreClosedError, TimeoutError))
        else:
            is_wrong = backend not in KNOWING or answer is None or answer != READS[name][1]
        if is_wrong:
            wrong[name] = repr(answer)[:200]
    return wrong


def left(before: Held, backend: str) -> list[object]:
    """What is open now and was not before; of descriptors, gRPC keeps some for itself."""
    if backend == "gs":  # a call that failed keeps gRPC's core busy until its frames are collected
        gc.collect()
        time.sleep(0.05)
    return [each for each in before.more(Held.now()) if not (backend == "gs" and "descriptors" in str(each))]


@backends(*PLAIN, *KNOWING)
async def test_server_that_is_killed(backend: str, tmp_path: Path) -> None:
    """In mid-use, and before the first use: each read is an error, and nothing stays open."""
    with stoppable(backend, tmp_path) as server:
        before = Held.now()
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(server.place.store(close_timeout=1))
            await read_before(store)
            server.kill()
            wrong_in_use = await wrong_answers(store, backend)
            with at_most(1.7):
                await stack.aclose()
        left_after_use = left(before, backend)

        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(server.place.store(close_timeout=1))
            wrong_at_first = await wrong_answers(store, backend)
            with at_most(1.7):
                await stack.aclose()
        assert (wrong_in_use, wrong_at_first) == ({}, {})
        assert (left_after_use, left(before, backend)) == ([], [])


@backends("az")
@pytest.mark.parametrize("when", ["in use", "before the first use"])
async def test_azure_server_that_is_killed(backend: str, when: str, tmp_path: Path) -> None:
    """Azure's client tries for more than a minute: each read is still waiting when it is cut off, and says so."""
    with stoppable(backend, tmp_path) as server:
        before = Held.now()
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(server.place.store(close_timeout=1))
            if when == "in use":
                await read_before(store)
            server.kill()
            reading = {name: asyncio.ensure_future(read(store)) for name, (read, _) in READS.items()}
            await asyncio.wait(reading.values(), timeout=1)
            with at_most(1.7):
                await stack.aclose()
        _, pending = await asyncio.wait(reading.values(), timeout=1)
        assert {name for name, task in reading.items() if task in pending} == set()
        failures = {name: task.exception() for name, task in reading.items()}
        assert {name: failure for name, failure in failures.items() if not isinstance(failure, StoreClosedError)} == {}
        assert left(before, backend) == []


# A connection in use cannot be reached in urllib3's pools, nor in httpx's or smbprotocol's: leaving names the thread
# that waits for it, on time.
CANNOT_BE_CUT_OFF = ("webdav", "webhdfs", "smb")


def wait_for_workers() -> None:
    """Wait until no thread of ours is in a call to a filesystem."""
    for thread in threading.enumerate():
        if thread.name.startswith("managed-store"):
            thread.join(5)
            assert not thread.is_alive()


@backends(*CANNOT_BE_CUT_OFF)
@pytest.mark.timeout(30)
async def test_thread_that_cannot_be_cut_off_is_named(backend: str, tmp_path: Path) -> None:
    """Leaving comes back on time with an error that names it, and the read raises."""
    with stoppable(backend, tmp_path) as server:
        store = server.place.store(close_timeout=1)
        await read_before(store)
        server.freeze()
        reading = asyncio.create_task(store.get(ASKED_FOR, PROTOTYPE))
        await asyncio.sleep(0.1)
        with at_most(1.5), pytest.raises(StoreCloseError, match="thread in a call to the filesystem"):
            await store.aclose()
        with pytest.raises(StoreClosedError):
            await asyncio.wait_for(reading, 1)
        del reading
        server.thaw()
        await asyncio.to_thread(wait_for_workers)
        gc.collect()  # what the thread leaves behind is to be quiet, here and not in another test


@backends(
    *(each for each in PLAIN if each not in CANNOT_BE_CUT_OFF),
    *("az", "simplecache::http", "simplecache::ftp", "blockcache::http", "zip::http"),
)
@pytest.mark.parametrize("when", ["before", "during"])
@pytest.mark.timeout(20)
async def test_server_that_stops_answering(backend: str, when: str, tmp_path: Path) -> None:
    """A read that hangs is cut off: leaving takes about `close_timeout`, the read raises, and nothing stays open."""
    with stoppable(backend, tmp_path) as server:
        before = Held.now()
        for pause in (0.005, 0.003, 0.002, 0.001, 0.0005, *[0.0] * 20):  # with the first it may have been too fast
            async with AsyncExitStack() as stack:
                store = await stack.enter_async_context(server.place.store(close_timeout=1))
                await read_before(store)
                if when == "before":
                    server.freeze()
                reading = asyncio.create_task(store.get(ASKED_FOR, PROTOTYPE))
                await asyncio.sleep(pause)
                server.freeze()
                await asyncio.sleep(0.1)
                if reading.done():
                    server.thaw()
                    continue
                with at_most(1.5):
                    await stack.aclose()
            with pytest.raises(StoreClosedError):
                await asyncio.wait_for(reading, 1)
            break
        else:
            pytest.fail("no read was slow enough")
        assert left(before, backend) == []


@backends("http", "ftp", "sftp", "zip::http")
async def test_server_that_stops_answering_while_the_store_opens(backend: str, tmp_path: Path) -> None:
    """The same where the server is frozen before the first use, and the filesystem still being built."""
    with stoppable(backend, tmp_path) as server:
        before = Held.now()
        server.freeze()
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(server.place.store(close_timeout=1))
            reading = asyncio.create_task(store.get(ASKED_FOR, PROTOTYPE))
            await asyncio.sleep(0.2)
            with at_most(1.5):
                await stack.aclose()
            with pytest.raises((StoreClosedError, StoreOpenError)):
                await asyncio.wait_for(reading, 1)
        server.kill()
        for _ in range(100):  # a constructor that was blocked ends with its connection
            if not left(before, backend):
                break
            await asyncio.sleep(0.02)
        assert left(before, backend) == []
