"""What is written or deleted is what the next read sees, by every way to the same store, on each backend that can."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import numpy as np
import pytest
import zarr
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore
from tests.every_backend import NUMBERS, Everything, Place, backends, content_of, everything, listed

__all__ = ["everything"]  # a fixture

PROTOTYPE = default_buffer_prototype()

# impacket's SMB server makes no folders.
WRITABLE = ("memory", "file", "gs", "s3", "az", "ftp", "sftp", "webdav", "webhdfs", "dir::s3")
CACHED = ("simplecache::s3", "filecache::s3", "simplecache::file", "filecache::file", "simplecache::ftp")


@pytest.fixture(autouse=True)
def _collected(backend: str) -> Iterator[None]:
    """A local file that is left open, and warns of it, is to be this test's failure and not another's."""
    yield
    if "cache" in backend:
        gc.collect()


@pytest.fixture
def place(backend: str, everything: Everything) -> Place:
    """An empty place of the test's own."""
    return everything.empty(backend)


@pytest.fixture
def store(place: Place) -> Iterator[ManagedStore]:
    """A store there."""
    with place.store() as store:
        yield store


async def write(store: ManagedStore, key: str, content: bytes) -> None:
    """Set a key."""
    await store.set(key, cpu.Buffer.from_bytes(content))


async def read(store: ManagedStore, key: str) -> bytes | None:
    """The bytes of a key, or None."""
    answer = await store.get(key, PROTOTYPE)
    return None if answer is None else answer.to_bytes()


@backends(*WRITABLE, *CACHED)
def test_what_is_written_is_read(backend: str, store: ManagedStore, place: Place) -> None:
    """Objects of several sizes, in folders that nobody made, by the same store and by another one."""
    contents = {f"a/{size}/key": content_of(size) for size in (0, 1, 1000, 70_000)} | {"top": b"top"}
    for key, content in contents.items():
        sync(write(store, key, content))
    assert {key: sync(read(store, key)) for key in contents} == contents
    assert sync(listed(store.list())) == sorted(contents)
    assert sync(listed(store.list_dir("a"))) == ["0", "1", "1000", "70000"]
    with place.store() as another:
        assert {key: sync(read(another, key)) for key in contents} == contents
        assert [sync(another.getsize(key)) for key in contents] == [*map(len, contents.values())]


@backends(*WRITABLE, *CACHED)
def test_overwriting_replaces_all_of_it(backend: str, store: ManagedStore) -> None:
    """Shorter data leaves nothing of the longer that was there, nor of what was read before; neither does nothing."""
    for content in (content_of(1000), b"short", b"", content_of(70_000), b"again"):
        sync(write(store, "folder/key", content))
        assert sync(read(store, "folder/key")) == content
        assert sync(store.getsize("folder/key")) == len(content)
    assert sync(listed(store.list())) == ["folder/key"]


@backends(*WRITABLE, *CACHED)
def test_what_is_deleted_is_gone(backend: str, store: ManagedStore) -> None:
    """`delete` and `delete_dir`, also of what is not there, and of what was read before."""
    keys = ("a/1", "a/inner/2", "a/inner/3", "ab/4", "5")
    for key in keys:
        sync(write(store, key, key.encode()))
        assert sync(read(store, key)) == key.encode()
    sync(store.delete("a/1"))
    assert (sync(read(store, "a/1")), sync(store.exists("a/1"))) == (None, False)
    sync(store.delete("a/1"))
    sync(store.delete("missing/key"))
    sync(store.delete_dir("a"))
    sync(store.delete_dir("missing"))
    assert [sync(read(store, key)) for key in keys] == [None, None, None, b"ab/4", b"5"]
    assert sync(listed(store.list())) == ["5", "ab/4"]
    assert sync(listed(store.list_dir("a"))) == []
    sync(store.clear())
    assert sync(listed(store.list())) == []
    sync(write(store, "a/1", b"new"))
    assert sync(read(store, "a/1")) == b"new"


@backends(*WRITABLE, *CACHED)
def test_set_if_not_exists(backend: str, store: ManagedStore) -> None:
    """The first one is written and the second is not."""
    for content in (b"first", b"second"):
        sync(store.set_if_not_exists("folder/key", cpu.Buffer.from_bytes(content)))
        assert sync(read(store, "folder/key")) == b"first"


@backends(*(name for name in WRITABLE if name != "memory"), *CACHED)
async def test_other_loops_see_it_at_once(backend: str, place: Place) -> None:
    """What one loop writes, overwrites or deletes, another loop of the same store sees, though it has read before."""
    async with place.store() as store:
        await asyncio.to_thread(sync, write(store, "folder/key", b"first, and long"))
        for content in (b"second", content_of(70_000), b"third"):
            assert await read(store, "folder/key") is not None
            await asyncio.to_thread(sync, write(store, "folder/key", content))
            assert await read(store, "folder/key") == content
            assert await asyncio.to_thread(sync, read(store, "folder/key")) == content
        await write(store, "folder/key", b"by this loop")
        assert await asyncio.to_thread(sync, read(store, "folder/key")) == b"by this loop"
        await store.delete("folder/key")
        assert await asyncio.to_thread(sync, read(store, "folder/key")) is None
        assert not await asyncio.to_thread(sync, store.exists("folder/key"))
        await asyncio.to_thread(sync, write(store, "folder/key", b"anew"))
        assert await read(store, "folder/key") == b"anew"
        await asyncio.to_thread(sync, store.delete_dir("folder"))
        assert await read(store, "folder/key") is None
        assert await listed(store.list()) == []


@backends(*WRITABLE, *CACHED)
def test_sharded_array_is_written_and_read(backend: str, store: ManagedStore) -> None:
    """zarr writes whole shards, and reads and writes parts of the array."""
    array = zarr.create_array(
        store, name="array", shape=(8, 8), chunks=(2, 2), shards=(8, 4), dtype="u2", compressors=None
    )
    array[:] = NUMBERS
    array[3, 3] = 1
    expected = NUMBERS.copy()
    expected[3, 3] = 1
    np.testing.assert_array_equal(zarr.open_array(store, path="array", mode="r")[:], expected)


@backends(*(name for name in WRITABLE if name not in ("memory", "file")))
async def test_concurrent_writes_and_reads(backend: str, place: Place) -> None:
    """Many at a time, to folders that are made meanwhile; half of a second wave is cancelled, and the rest is whole."""
    async with place.store() as store:
        contents = {f"{number % 3}/{number}": content_of(100 * number) for number in range(12)}
        await asyncio.gather(*(write(store, key, content) for key, content in contents.items()))
        assert await asyncio.gather(*(read(store, key) for key in contents)) == [*contents.values()]
        tasks = [asyncio.create_task(write(store, key, b"new " + content)) for key, content in contents.items()]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number, (key, content) in enumerate(contents.items()):
            answer = await read(store, key)
            assert answer == b"new " + content or (number % 2 == 0 and answer == content), key
