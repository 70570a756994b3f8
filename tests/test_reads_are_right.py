"""Every backend gives the same bytes for every byte request: those that a slice of the whole object would give."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore
from tests.conftest import Place
from tests.tiny_server import Answer, files, tiny_server

PROTOTYPE = default_buffer_prototype()
SIZES = (0, 1, 2, 10, 1000)
# Prime to any power of two: no part of it looks like another one nearby.
CONTENTS = {f"folder/{size}": bytes(position * 7 % 251 for position in range(size)) for size in SIZES}
EXAMPLES = {"memory": 100, "file": 100, "http": 60, "https": 60, "gs": 40, "s3": 30}

positions = st.integers(0, 12) | st.integers(990, 1010)
byte_requests = (
    st.none()
    | st.tuples(positions, positions).map(lambda pair: RangeByteRequest(min(pair), max(pair)))
    | positions.map(lambda start: RangeByteRequest(start, start))
    | positions.map(OffsetByteRequest)
    | positions.map(SuffixByteRequest)
)


def part(content: bytes, byte_request: ByteRequest | None) -> bytes:
    """What the request means: independent of every store."""
    match byte_request:
        case RangeByteRequest(start, end):
            return content[start:end]
        case OffsetByteRequest(offset):
            return content[offset:]
        case SuffixByteRequest(suffix):
            return content[max(0, len(content) - suffix) :]
    return content


async def get_ranges(store: ManagedStore, key: str, byte_requests: list[ByteRequest | None]) -> list[bytes]:
    """What `get_ranges` gives, in the order of the requests."""
    groups = [group async for group in store.get_ranges(key, byte_requests, prototype=PROTOTYPE)]
    parts = {position: each.to_bytes() for group in groups for position, each in group}
    return [parts[position] for position in range(len(byte_requests))]


@pytest.fixture
def filled(backend: str, empty_place: Place, request: pytest.FixtureRequest) -> Iterator[ManagedStore]:
    """A store over a place that holds `CONTENTS`."""
    with ManagedStore(empty_place.url, storage_options=empty_place.options) as store:
        if backend in ("http", "https"):
            write_files(request.getfixturevalue(backend).root / empty_place.url.rpartition("/")[2])
        else:
            for key, content in CONTENTS.items():
                sync(store.set(key, cpu.Buffer.from_bytes(content)))
        yield store


def write_files(folder: Path) -> None:
    """Write `CONTENTS` into a local folder."""
    for key, content in CONTENTS.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)


@pytest.mark.parametrize("backend", EXAMPLES)
def test_byte_requests_give_the_same_bytes_everywhere(backend: str, filled: ManagedStore) -> None:
    """Any Range, Offset or Suffix of an object of any size, by each method that reads, is that slice of the whole."""

    @settings(max_examples=EXAMPLES[backend], deadline=None, database=None, print_blob=True)
    @given(size=st.sampled_from(SIZES), requests=st.lists(byte_requests, min_size=1, max_size=4))
    @example(size=0, requests=[OffsetByteRequest(0), SuffixByteRequest(1), RangeByteRequest(0, 1)])
    @example(size=10, requests=[SuffixByteRequest(0), SuffixByteRequest(10), SuffixByteRequest(11)])
    @example(size=10, requests=[RangeByteRequest(10, 12), RangeByteRequest(9, 12), OffsetByteRequest(10)])
    @example(size=10, requests=[RangeByteRequest(3, 3), RangeByteRequest(0, 0), OffsetByteRequest(11)])
    def check(size: int, requests: list[ByteRequest | None]) -> None:
        key = f"folder/{size}"
        expected = [part(CONTENTS[key], each) for each in requests]
        assert [sync(filled.get(key, PROTOTYPE, each)).to_bytes() for each in requests] == expected
        parts = sync(filled.get_partial_values(PROTOTYPE, [(key, each) for each in requests]))
        assert [each.to_bytes() for each in parts] == expected
        if hasattr(Store, "get_ranges"):
            assert sync(get_ranges(filled, key, requests)) == expected

    check()


@pytest.mark.parametrize("backend", EXAMPLES)
def test_positions_far_past_the_end_are_like_those_just_past_it(backend: str, filled: ManagedStore) -> None:
    """An end that no object reaches means up to the end, and a start there means nothing."""
    for far in (2**31, 2**32 + 1, 2**53):
        requests = [RangeByteRequest(4, far), RangeByteRequest(far, far + 1), OffsetByteRequest(far)]
        requests.append(SuffixByteRequest(far))
        for size in (0, 10):
            content = CONTENTS[f"folder/{size}"]
            observed = [sync(filled.get(f"folder/{size}", PROTOTYPE, each)).to_bytes() for each in requests]
            assert observed == [part(content, each) for each in requests]


@pytest.mark.parametrize("backend", EXAMPLES)
def test_byte_requests_for_a_missing_key_give_none(backend: str, filled: ManagedStore) -> None:
    """A part of a key that is not there is None, also where no byte is asked for; an empty object is not None."""
    requests = [None, RangeByteRequest(0, 1), RangeByteRequest(2, 2), OffsetByteRequest(1), SuffixByteRequest(1)]
    requests.append(SuffixByteRequest(0))
    for key in ("folder/missing", "missing/0"):
        assert [sync(filled.get(key, PROTOTYPE, each)) for each in requests] == [None] * len(requests)
        assert sync(filled.get_partial_values(PROTOTYPE, [(key, each) for each in requests])) == [None] * len(requests)
    parts = sync(filled.get_partial_values(PROTOTYPE, [("folder/missing", None), ("folder/10", SuffixByteRequest(2))]))
    assert (parts[0], parts[1].to_bytes()) == (None, CONTENTS["folder/10"][-2:])


@pytest.mark.parametrize("backend", ["memory", "file", "gs", "s3"])  # over HTTP a folder is a page like any other
def test_folder_is_no_key(backend: str, filled: ManagedStore) -> None:
    """The name of a folder is not there as a key, whatever is asked of it."""
    assert not sync(filled.exists("folder"))
    assert sync(filled.get("folder", PROTOTYPE)) is None
    assert sync(filled.get("folder", PROTOTYPE, SuffixByteRequest(1))) is None
    with pytest.raises(FileNotFoundError):
        sync(filled.getsize("folder"))


async def collect(iterator: AsyncIterator[str]) -> list[str]:
    """Gather what an asynchronous iterator gives."""
    return [name async for name in iterator]


@pytest.mark.parametrize("backend", EXAMPLES)
def test_key_is_no_folder(backend: str, filled: ManagedStore) -> None:
    """Nothing is listed or measured below the name of a key, as in zarr's MemoryStore."""
    assert sync(collect(filled.list_dir("folder/10"))) == []
    assert sync(collect(filled.list_prefix("folder/10/"))) == []
    assert sync(filled.getsize_prefix("folder/10")) == 0
    assert sync(filled.is_empty("folder/10"))


@pytest.mark.parametrize("backend", EXAMPLES)
def test_what_is_no_byte_request_is_refused(backend: str, filled: ManagedStore) -> None:
    """A tuple or a slice in place of a byte request is an error, not the whole object."""
    for wrong in [(0, 2), slice(0, 2)]:
        with pytest.raises((ValueError, TypeError), match="Unexpected byte_range"):
            sync(filled.get("folder/10", PROTOTYPE, wrong))  # type: ignore[arg-type]
        with pytest.raises((ValueError, TypeError), match="Unexpected byte_range"):
            sync(filled.get_partial_values(PROTOTYPE, [("folder/10", wrong)]))  # type: ignore[list-item]


def test_server_that_ignores_ranges() -> None:
    """A server that sends the whole object, whatever part it is asked for, still gives the right bytes."""
    requests = [RangeByteRequest(2, 5), RangeByteRequest(8, 20), RangeByteRequest(10, 12), RangeByteRequest(4, 4)]
    requests += [OffsetByteRequest(3), OffsetByteRequest(11), SuffixByteRequest(3), SuffixByteRequest(11)]
    requests += [SuffixByteRequest(0)]
    with tiny_server(files(CONTENTS)) as url, ManagedStore(url) as store:
        for key, content in CONTENTS.items():
            expected = [part(content, each) for each in requests]
            assert [sync(store.get(key, PROTOTYPE, each)).to_bytes() for each in requests] == expected
            parts = sync(store.get_partial_values(PROTOTYPE, [(key, each) for each in requests]))
            assert [each.to_bytes() for each in parts] == expected
            if hasattr(Store, "get_ranges"):
                assert sync(get_ranges(store, key, requests)) == expected
        assert sync(store.get("folder/missing", PROTOTYPE, RangeByteRequest(0, 1))) is None


def test_shards_on_a_server_that_ignores_ranges() -> None:
    """One chunk of a sharded array is right there too: zarr asks for the end of the object, then for a part of it."""
    contents: dict[str, Any] = {}
    expected = np.arange(64, dtype="u2").reshape(8, 8)
    array = zarr.create_array(contents, shape=(8, 8), chunks=(2, 2), shards=(8, 4), dtype="u2", compressors=None)
    array[:] = expected
    served = {key: value.to_bytes() for key, value in contents.items()}
    with tiny_server(files(served)) as url, ManagedStore(url) as store:
        read = zarr.open_array(store, mode="r")
        np.testing.assert_array_equal(read[2:4, 6:8], expected[2:4, 6:8])
        np.testing.assert_array_equal(read[:], expected)


def test_server_that_compresses() -> None:
    """A server that compresses for clients which accept that, and cuts its ranges from the compressed bytes."""
    content = bytes(range(256)) * 8

    def respond(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        compresses = "gzip" in headers.get("Accept-Encoding", "")
        body = gzip.compress(content) if compresses else content
        sent = {"Content-Encoding": "gzip"} if compresses else {}
        if "Range" not in headers:
            return Answer(200, body, sent)
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        start, end = (int(first), int(last) + 1 if last else len(body)) if first else (len(body) - int(last), len(body))
        return Answer(206, body[start:end], {**sent, "Content-Range": f"bytes {start}-{end - 1}/{len(body)}"})

    requests = [None, RangeByteRequest(10, 300), OffsetByteRequest(2000), SuffixByteRequest(20)]
    with tiny_server(respond) as url, ManagedStore(url) as store:
        expected = [part(content, each) for each in requests]
        assert [sync(store.get("key", PROTOTYPE, each)).to_bytes() for each in requests] == expected
        assert sync(store.getsize("key")) == len(content)


def test_server_that_answers_no_head_requests() -> None:
    """Where only GET is allowed, as by a signed URL, existence and size are right all the same."""

    def respond(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        return files(CONTENTS)(method, path, headers) if method == "GET" else Answer(403)

    with tiny_server(respond) as url, ManagedStore(url) as store:
        assert [sync(store.exists(key)) for key in ("folder/10", "folder/missing")] == [True, False]
        assert [sync(store.getsize(f"folder/{size}")) for size in SIZES] == list(SIZES)
        with pytest.raises(FileNotFoundError):
            sync(store.getsize("folder/missing"))


def test_server_that_tells_no_sizes() -> None:
    """Where an answer just ends, without a length, the size is that of what is sent, and parts are right."""

    def respond(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        return replace(files(CONTENTS)(method, path, headers), tells_length=False)

    with tiny_server(respond) as url, ManagedStore(url) as store:
        for size in SIZES:
            assert sync(store.getsize(f"folder/{size}")) == size
            end = sync(store.get(f"folder/{size}", PROTOTYPE, SuffixByteRequest(3)))
            assert end.to_bytes() == CONTENTS[f"folder/{size}"][-3:]
