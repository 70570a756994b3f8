"""No combination of byte request and backend gives wrong bytes: each is compared with zarr's MemoryStore."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from managed_store import ManagedStore
from tests.every_backend import (
    CONTENTS,
    EVERY_BACKEND,
    FOLDERS,
    LARGE,
    NUMBERS,
    Everything,
    backends,
    everything,
    listed,
)

__all__ = ["everything"]  # a fixture

PROTOTYPE = default_buffer_prototype()
FAR = (10**6, 2**31, 2**32 + 1, 2**53)
Requests = list[tuple[str, ByteRequest | None]]

# Each example is up to 6 requests, asked for twice.
EXAMPLES = 8

# Over HTTP a folder is a page like any other.
FOLDERS_ARE_PAGES = tuple(name for name in EVERY_BACKEND if name.endswith(("http", "https")) and name[0] in "hdsfb")

positions = (
    st.integers(0, 12)
    | st.integers(990, 1010)
    | st.integers(65_530, 65_540)
    | st.integers(69_990, 70_010)
    | st.sampled_from(FAR)
)
byte_requests = (
    st.none()
    | st.tuples(positions, positions).map(lambda pair: RangeByteRequest(min(pair), max(pair)))
    | positions.map(lambda start: RangeByteRequest(start, start))
    | positions.map(OffsetByteRequest)
    | positions.map(SuffixByteRequest)
)
keys = st.sampled_from([*(key for key in CONTENTS if key != "other/large"), "folder/missing"])


class RightMemoryStore(MemoryStore):
    """The memory store of zarr 3.1 takes a suffix that is longer than the object for a position in it."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if isinstance(byte_range, SuffixByteRequest) and key in CONTENTS:
            byte_range = OffsetByteRequest(max(0, len(CONTENTS[key]) - byte_range.suffix))
        return await super().get(key, prototype or PROTOTYPE, byte_range)


@pytest.fixture(scope="module")
def memory() -> MemoryStore:
    """The store that all others are compared with."""
    return RightMemoryStore({key: cpu.Buffer.from_bytes(content) for key, content in CONTENTS.items()})


@pytest.fixture(scope="module")
def store(backend: str, everything: Everything) -> Iterator[ManagedStore]:
    """A store over the place that holds `CONTENTS`, for all tests on one backend."""
    with everything.filled(backend).store() as store:
        sync(store.exists("folder/small"))  # what the first test opened would be that test's, for --fail-on-leaks
        yield store


@pytest.fixture(autouse=True)
def _collected(backend: str) -> Iterator[None]:
    """A local file that is left open, and warns of it, is to be this test's failure and not another's."""
    yield
    if "cache" in backend:
        gc.collect()


def as_bytes(answers: list[Buffer | None]) -> list[bytes | None]:
    """The bytes of each answer."""
    return [None if answer is None else answer.to_bytes() for answer in answers]


async def one_by_one(store: Store, requests: Requests) -> list[Any]:
    """The answers of `get`, or the errors."""
    answers: list[Any] = []
    for key, each in requests:
        try:
            answers += as_bytes([await store.get(key, PROTOTYPE, each)])
        except Exception as error:
            answers.append(error)
    return answers


async def together(store: Store, requests: Requests) -> list[Any]:
    """The answers of `get` to requests that are under way at the same time."""
    answers: list[Any] = await asyncio.gather(
        *(store.get(key, PROTOTYPE, each) for key, each in requests), return_exceptions=True
    )
    return [answer.to_bytes() if isinstance(answer, Buffer) else answer for answer in answers]


async def at_once(store: Store, requests: Requests) -> list[Any]:
    """The answers of `get_partial_values`."""
    return as_bytes(await store.get_partial_values(PROTOTYPE, requests))


def assert_right(store: Store, memory: MemoryStore, requests: Requests) -> None:
    """Each way to read gives what the memory store gives."""
    expected = sync(one_by_one(memory, requests))
    for read in (one_by_one, at_once):
        wrong = wrong_answers(requests, sync(read(store, requests)), expected)
        assert wrong == [], read.__name__


def wrong_answers(requests: Requests, answers: list[Any], expected: list[Any]) -> list[tuple[Any, ...]]:
    """The requests whose answers are wrong, with the errors; without the bytes, which nobody could read."""
    return [
        (*request, repr(answer) if answer is None or isinstance(answer, Exception) else f"{len(answer)} bytes")
        for request, answer, right in zip(requests, answers, expected, strict=True)
        if answer != right
    ]


@backends(*EVERY_BACKEND, scope="module")
def test_byte_requests_give_what_memory_gives(backend: str, store: ManagedStore, memory: MemoryStore) -> None:
    """Any Range, Offset or Suffix of objects of many sizes is the same bytes, and None for a missing key."""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
    @given(requests=st.lists(st.tuples(keys, byte_requests), min_size=1, max_size=6))
    @example([("one", OffsetByteRequest(0)), ("one", SuffixByteRequest(1)), ("one", SuffixByteRequest(2))])
    @example([("folder/block", RangeByteRequest(1, 3)), ("folder/small", None), ("folder/block", SuffixByteRequest(3))])
    @example([("folder/small", SuffixByteRequest(size)) for size in (0, 1, 10, 11, *FAR)])
    @example([("folder/small", OffsetByteRequest(start)) for start in (0, 9, 10, 11, *FAR)])
    @example([("folder/small", RangeByteRequest(start, start + 5)) for start in (0, 9, 10, 11, *FAR)])
    @example([("folder/small", RangeByteRequest(3, end)) for end in (3, 4, 10, 11, *FAR)])
    def check(requests: Requests) -> None:
        assert_right(store, memory, requests)

    check()


@backends(*EVERY_BACKEND, scope="module")
def test_empty_object_is_not_missing(backend: str, store: ManagedStore, memory: MemoryStore) -> None:
    """An object of no bytes is an empty answer to every request."""
    requests: list[ByteRequest | None] = [None]
    requests += [RangeByteRequest(start, end) for start in (0, 1) for end in (start, start + 1, *FAR)]
    requests += [OffsetByteRequest(start) for start in (0, 1, *FAR)]
    requests += [SuffixByteRequest(size) for size in (0, 1, *FAR)]
    assert_right(store, memory, [("empty", each) for each in requests])


@backends(*EVERY_BACKEND, scope="module")
def test_parts_of_a_large_object(backend: str, store: ManagedStore, memory: MemoryStore) -> None:
    """More than any block: parts across the edges of blocks, one far into the object, and the whole."""
    edges = (2**16, 2**20, 5 * 2**20)
    requests: Requests = [("other/large", RangeByteRequest(edge - 3, edge + 3)) for edge in edges]
    requests += [("other/large", SuffixByteRequest(size)) for size in (1, 1001)]
    requests += [("other/large", OffsetByteRequest(LARGE - 70_000)), ("other/large", RangeByteRequest(LARGE, LARGE))]
    assert_right(store, memory, requests)
    whole = sync(store.get("other/large", PROTOTYPE))
    assert whole is not None
    assert whole.to_bytes() == CONTENTS["other/large"]


@backends(*EVERY_BACKEND, scope="module")
def test_missing_key_gives_none(backend: str, store: ManagedStore) -> None:
    """A key that is not there is None whatever part is asked for, does not exist, and has no size."""
    requests = [None, RangeByteRequest(0, 1), RangeByteRequest(2, 2), OffsetByteRequest(1), SuffixByteRequest(1)]
    requests.append(SuffixByteRequest(0))
    for key in ("missing", "folder/missing", "missing/inner", "folder/small/inner"):
        pairs: Requests = [(key, each) for each in requests]
        assert sync(one_by_one(store, pairs)) == [None] * len(requests), key
        assert sync(at_once(store, pairs)) == [None] * len(requests), key
        assert not sync(store.exists(key)), key
        with pytest.raises(FileNotFoundError):
            sync(store.getsize(key))


@backends(*(name for name in EVERY_BACKEND if name not in FOLDERS_ARE_PAGES), scope="module")
def test_folder_is_no_key(backend: str, store: ManagedStore) -> None:
    """The name of a folder is not there as a key, whatever is asked of it."""
    requests = [None, RangeByteRequest(0, 1), RangeByteRequest(2, 2), OffsetByteRequest(1), SuffixByteRequest(1)]
    for folder in FOLDERS:
        assert sync(one_by_one(store, [(folder, each) for each in requests])) == [None] * len(requests), folder
        assert not sync(store.exists(folder)), folder
        with pytest.raises(FileNotFoundError):
            sync(store.getsize(folder))


@backends(*EVERY_BACKEND, scope="module")
def test_listings_and_sizes_are_those_of_memory(backend: str, store: ManagedStore, memory: MemoryStore) -> None:
    """`list`, `list_prefix`, `list_dir`, `exists`, `getsize`, `getsize_prefix` and `is_empty` say the same."""
    assert sync(listed(store.list())) == sync(listed(memory.list()))
    for prefix in (
        "",
        "folder/",
        "folder/inner/",
        "array/",
        "missing/",
        "one/",
        "folder",
    ):  # zarr asks for folders only
        assert sync(listed(store.list_prefix(prefix))) == sync(listed(memory.list_prefix(prefix))), prefix
    for folder in ("", *FOLDERS, "folder/", "missing", "one"):  # the last one is a key
        assert sync(listed(store.list_dir(folder))) == sync(listed(memory.list_dir(folder))), folder
    for folder in ("", "folder", "folder/inner", "missing"):
        assert sync(store.is_empty(folder)) == sync(memory.is_empty(folder)), folder
        assert sync(store.getsize_prefix(folder)) == sum(
            len(content) for key, content in CONTENTS.items() if key.startswith(f"{folder}/" if folder else "")
        ), folder
    for key, content in CONTENTS.items():
        assert sync(store.exists(key)), key
        assert sync(store.getsize(key)) == len(content), key


@backends(*EVERY_BACKEND, scope="module")
def test_sharded_array_is_read(backend: str, store: ManagedStore) -> None:
    """zarr asks for the end of each shard, and then for parts of it."""
    array = zarr.open_array(store, path="array", mode="r")
    np.testing.assert_array_equal(array[2:4, 6:8], NUMBERS[2:4, 6:8])
    np.testing.assert_array_equal(array[:], NUMBERS)


def mixed(count: int, seed: int, *names: str) -> Requests:
    """Requests of every kind, in an order that says nothing."""
    chance = random.Random(seed)
    kinds: list[Callable[[int], ByteRequest | None]] = [
        lambda start: None,
        lambda start: RangeByteRequest(start, start + chance.randrange(5000)),
        OffsetByteRequest,
        SuffixByteRequest,
    ]
    return [(chance.choice(names), chance.choice(kinds)(chance.randrange(70_010))) for _ in range(count)]


SEVERAL = ("folder/block", "folder/small", "folder/inner/thousand", "folder/inner/text", "one", "missing")


@backends(*EVERY_BACKEND, scope="module")
async def test_concurrent_requests(backend: str, everything: Everything, memory: MemoryStore) -> None:
    """Thirty at a time for several keys, and for one key, on a loop of the caller's, from the first use on."""
    async with everything.filled(backend).store() as store:
        for names in (SEVERAL, ("folder/block",)):
            requests = mixed(30, 1, *names)
            expected = await one_by_one(memory, requests)
            assert wrong_answers(requests, await together(store, requests), expected) == []


@backends(*EVERY_BACKEND, scope="module")
async def test_answers_after_cancelled_requests(backend: str, everything: Everything, memory: MemoryStore) -> None:
    """Half of the requests are cancelled, at moments of any kind; the others and all that follow have right answers."""
    chance = random.Random(2)
    requests = mixed(30, 3, "folder/block", "folder/small", "folder/inner/thousand")
    expected = await one_by_one(memory, requests)
    async with everything.filled(backend).store() as store:
        for pause in (0.0, 0.001, 0.01):
            tasks = [asyncio.create_task(store.get(key, PROTOTYPE, each)) for key, each in requests]
            await asyncio.sleep(pause)
            cancelled = chance.sample(tasks, 15)
            for task in cancelled:
                task.cancel()
            answers: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
            for task, request, answer, right in zip(tasks, requests, answers, expected, strict=True):
                if task not in cancelled or not isinstance(answer, asyncio.CancelledError):
                    assert hasattr(answer, "to_bytes"), (request, answer)
                    assert answer.to_bytes() == right, request
            assert wrong_answers(requests[:6], await one_by_one(store, requests[:6]), expected[:6]) == []
