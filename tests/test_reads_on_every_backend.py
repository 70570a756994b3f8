"""No combination of byte request and backend gives wrong bytes: each is compared with zarr's MemoryStore."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
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
EXAMPLES = 15

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


@pytest.fixture(scope="module")
def memory() -> MemoryStore:
    """The store that all others are compared with."""
    return MemoryStore({key: cpu.Buffer.from_bytes(content) for key, content in CONTENTS.items()})


@pytest.fixture
def store(backend: str, everything: Everything) -> Iterator[ManagedStore]:
    """A store over the place that holds `CONTENTS`."""
    with everything.filled(backend).store() as store:
        yield store


def as_bytes(answers: list[Buffer | None]) -> list[bytes | None]:
    """The bytes of each answer."""
    return [None if answer is None else answer.to_bytes() for answer in answers]


async def one_by_one(store: Store, requests: Requests) -> list[bytes | None]:
    """The answers of `get`."""
    return as_bytes([await store.get(key, PROTOTYPE, each) for key, each in requests])


async def together(store: Store, requests: Requests) -> list[bytes | None]:
    """The answers of `get` to requests that are under way at the same time."""
    return as_bytes(await asyncio.gather(*(store.get(key, PROTOTYPE, each) for key, each in requests)))


async def at_once(store: Store, requests: Requests) -> list[bytes | None]:
    """The answers of `get_partial_values`."""
    return as_bytes(await store.get_partial_values(PROTOTYPE, requests))


def assert_right(store: Store, memory: MemoryStore, requests: Requests) -> None:
    """Each way to read gives what the memory store gives."""
    expected = sync(one_by_one(memory, requests))
    for read in (one_by_one, at_once):
        observed = sync(read(store, requests))
        # Not as an assertion on the lists: pytest would print all of the bytes.
        wrong = [pair for pair, each, right in zip(requests, observed, expected, strict=True) if each != right]
        assert wrong == [], read.__name__


@backends(*EVERY_BACKEND)
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


@backends(*EVERY_BACKEND)
@pytest.mark.parametrize("kind", ["whole", "range", "offset", "suffix"])
def test_empty_object_is_not_missing(backend: str, kind: str, store: ManagedStore, memory: MemoryStore) -> None:
    """An object of no bytes is an empty answer to every request."""
    requests: dict[str, list[ByteRequest | None]] = {
        "whole": [None],
        "range": [RangeByteRequest(start, end) for start in (0, 1) for end in (start, start + 1, *FAR)],
        "offset": [OffsetByteRequest(start) for start in (0, 1, *FAR)],
        "suffix": [SuffixByteRequest(size) for size in (0, 1, *FAR)],
    }
    assert_right(store, memory, [("empty", each) for each in requests[kind]])


@backends(*EVERY_BACKEND)
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


@backends(*EVERY_BACKEND)
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


@backends(*(name for name in EVERY_BACKEND if name not in FOLDERS_ARE_PAGES))
def test_folder_is_no_key(backend: str, store: ManagedStore) -> None:
    """The name of a folder is not there as a key, whatever is asked of it."""
    requests = [None, RangeByteRequest(0, 1), RangeByteRequest(2, 2), OffsetByteRequest(1), SuffixByteRequest(1)]
    for folder in FOLDERS:
        assert sync(one_by_one(store, [(folder, each) for each in requests])) == [None] * len(requests), folder
        assert not sync(store.exists(folder)), folder
        with pytest.raises(FileNotFoundError):
            sync(store.getsize(folder))


@backends(*EVERY_BACKEND)
def test_listings_and_sizes_are_those_of_memory(backend: str, store: ManagedStore, memory: MemoryStore) -> None:
    """`list`, `list_prefix`, `list_dir`, `exists`, `getsize`, `getsize_prefix` and `is_empty` say the same."""
    assert sync(listed(store.list())) == sync(listed(memory.list()))
    for prefix in ("", "folder/", "folder/inner/", "array/", "missing/", "folder", "fol", "folder/in"):
        assert sync(listed(store.list_prefix(prefix))) == sync(listed(memory.list_prefix(prefix))), prefix
    for folder in ("", *FOLDERS, "folder/", "missing", "one"):
        assert sync(listed(store.list_dir(folder))) == sync(listed(memory.list_dir(folder))), folder
    for folder in ("", "folder", "folder/inner", "missing"):
        assert sync(store.is_empty(folder)) == sync(memory.is_empty(folder)), folder
        assert sync(store.getsize_prefix(folder)) == sum(
            len(content) for key, content in CONTENTS.items() if key.startswith(f"{folder}/" if folder else "")
        ), folder
    for key, content in CONTENTS.items():
        assert sync(store.exists(key)), key
        assert sync(store.getsize(key)) == len(content), key


@backends(*EVERY_BACKEND)
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


@backends(*EVERY_BACKEND)
@pytest.mark.parametrize("names", [SEVERAL, ("folder/block",)], ids=["several keys", "one key"])
async def test_concurrent_requests(
    backend: str, names: tuple[str, ...], everything: Everything, memory: MemoryStore
) -> None:
    """Thirty requests at a time, on a loop of the caller's, each with its own answer, from the first use on."""
    requests = mixed(30, 1, *names)
    expected = await one_by_one(memory, requests)
    async with everything.filled(backend).store() as store:
        assert await together(store, requests) == expected
        assert await together(store, requests[::-1]) == expected[::-1]


@backends(*EVERY_BACKEND)
async def test_answers_after_cancelled_requests(backend: str, everything: Everything, memory: MemoryStore) -> None:
    """Half of the requests are cancelled, at moments of any kind; the others and all that follow have right answers."""
    chance = random.Random(2)
    requests = mixed(30, 3, "folder/block", "folder/small", "folder/inner/thousand")
    expected = await one_by_one(memory, requests)
    async with everything.filled(backend).store() as store:
        for pause in (0.0, 0.001, 0.005, 0.02):
            tasks = [asyncio.create_task(store.get(key, PROTOTYPE, each)) for key, each in requests]
            await asyncio.sleep(pause)
            cancelled = chance.sample(tasks, 15)
            for task in cancelled:
                task.cancel()
            answers: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
            for task, answer, right in zip(tasks, answers, expected, strict=True):
                if isinstance(answer, BaseException):
                    assert (task in cancelled, type(answer)) == (True, asyncio.CancelledError)
                else:
                    assert answer.to_bytes() == right
            assert await one_by_one(store, requests[:6]) == expected[:6]
