"""Readers on many threads and loops while somebody closes: each ends with data or `StoreClosedError`, none hangs."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.driven_loops import ThreadLoop, ZarrLoop
from tests.footprint import NOTHING, Footprint
from tests.servers import FolderServer, http_server

ROUNDS = 500
THREADS = 8
LOOPS = 4
READERS_ON_A_LOOP = 2

PROTOTYPE = default_buffer_prototype()
CONTENT = b"good morning"


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        (server.root / "key").write_bytes(CONTENT)
        yield server
        assert server.wait_for_connections(0) == 0


def checked(value: Buffer | None, ends: Counter[str]) -> None:
    assert value is not None
    assert value.to_bytes() == CONTENT
    ends["answered"] += 1


def end_of(error: StoreClosedError) -> str:
    return "cut off" if "before the answer" in str(error) else "refused"


async def read_on_a_loop(store: ManagedStore, ends: Counter[str]) -> None:
    """Read again and again, until the store is closed."""
    try:
        while True:
            checked(await store.get("key", PROTOTYPE), ends)
    except StoreClosedError as error:
        ends[end_of(error)] += 1


async def several(store: ManagedStore, ends: Counter[str]) -> None:
    await asyncio.gather(*(read_on_a_loop(store, ends) for _ in range(READERS_ON_A_LOOP)))


def read_in_a_thread(store: ManagedStore, ends: Counter[str]) -> None:
    """The same through zarr's loop."""
    try:
        while True:
            checked(sync(store.get("key", PROTOTYPE)), ends)
    except StoreClosedError as error:
        ends[end_of(error)] += 1


@pytest.mark.timeout(240)
def test_readers_everywhere_while_somebody_closes(server: FolderServer) -> None:
    chance = random.Random(0)
    ends: Counter[str] = Counter()
    zarr_loop = ZarrLoop()
    zarr_loop.run(asyncio.sleep(0))
    before = Footprint.before()
    with ExitStack() as stack:
        loops = [ThreadLoop() for _ in range(LOOPS)]
        for loop in loops:
            stack.callback(loop.end, properly=True)
        closer = ThreadLoop()
        stack.callback(closer.end, properly=True)
        executor = stack.enter_context(ThreadPoolExecutor(THREADS + LOOPS))
        idle = Footprint.now().sockets

        for number in range(ROUNDS):
            store = ManagedStore(server.url)
            readers = [executor.submit(read_in_a_thread, store, ends) for _ in range(THREADS)]
            readers += [executor.submit(loop.run, several(store, ends)) for loop in loops]
            time.sleep(chance.uniform(0, 0.02))
            # Every third as after an exception, when reads are not waited for; else they may finish.
            if number % 3 == 0:
                with pytest.raises(ZeroDivisionError), store:
                    _ = 1 / 0
            elif number % 3 == 1:
                store.close()
            else:
                closer.run(store.aclose())
            for reader in readers:
                reader.result(timeout=20)
            assert store.statistics().loops == 0
            deadline = time.monotonic() + 2
            while Footprint.now().sockets != idle:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    assert before.grown_by(Footprint.now()) == NOTHING
    assert ends["cut off"] > ROUNDS
    assert ends["refused"] > 0
    assert ends["answered"] > ROUNDS
