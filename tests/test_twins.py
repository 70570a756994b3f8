"""Stores over filesystems that somebody else has made: a private twin, and theirs goes on as it was."""

from __future__ import annotations

import asyncio
import gc
import io
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.zip import ZipFileSystem
from upath import UPath
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ArgumentError, ArgumentTypeError, ManagedStore, StoreClosedError
from tests.every_backend import CONTENTS, NUMBERS, Everything, backends, everything
from tests.originals import Original, close, sessions_of

__all__ = ["everything"]  # the fixture

PROTOTYPE = default_buffer_prototype()
KEY = "folder/small"

PLAIN = ("memory", "file", "http", "s3", "gs", "az", "ftp")
CHAINS = ("simplecache::http", "simplecache::s3", "dir::http", "dir::s3", "zip::http", "zip::simplecache::http")


def read(store: Any) -> bytes:
    """A value of the tree, by way of the store, on zarr's loop."""
    value = sync(store.get(KEY, PROTOTYPE))
    assert value is not None
    return bytes(value.to_bytes())


@pytest.fixture
def original(everything: Everything, backend: str) -> Iterator[Original]:
    """A filesystem on the backend, used once."""
    original = Original(everything.filled(backend))
    yield original
    close(original.filesystem)
    gc.collect()


def stores_of(original: Original) -> dict[str, ManagedStore]:
    """A store over a twin by each way there is."""
    mapper = original.filesystem.get_mapper(original.path)
    return {
        "filesystem": ManagedStore.from_filesystem(original.filesystem, original.path),
        "mapper": ManagedStore.from_mapper(mapper),
    }


@backends(*PLAIN, *CHAINS)
@pytest.mark.parametrize("way", ["filesystem", "mapper"])
def test_the_original_is_untouched(way: str, original: Original) -> None:
    """Before, during and after: its session is open and the same, it works, and the twin is another one."""
    with stores_of(original)[way] as store:
        assert read(store) == CONTENTS[KEY]
        assert store.fs is not original.filesystem
        assert getattr(store.fs, "sync_fs", None) is not original.filesystem
        np.testing.assert_array_equal(zarr.open_array(store, path="array", mode="r")[:], NUMBERS)
        original.check_untouched()
    original.check_untouched()
    with pytest.raises(StoreClosedError):
        read(store)


@backends(*PLAIN, *CHAINS)
async def test_the_original_is_untouched_by_the_asynchronous_api(original: Original) -> None:
    """The same on a loop of the caller's."""
    async with ManagedStore.from_filesystem(original.filesystem, original.path) as store:
        value = await store.get(KEY, PROTOTYPE)
        assert value is not None
        assert value.to_bytes() == CONTENTS[KEY]
        await asyncio.to_thread(original.check_untouched)
    await asyncio.to_thread(original.check_untouched)


@backends("memory", "file", "http", "s3", "gs", "az", "ftp", "simplecache::http", "dir::http", "zip::http")
def test_pickled_stores_over_twins(original: Original) -> None:
    """A copy is equal, reads the same, and leaves the original alone too."""
    for store in stores_of(original).values():
        with store, pickle.loads(pickle.dumps(store)) as copy:
            assert copy == store
            assert str(copy) == str(store)
            assert read(copy) == CONTENTS[KEY]
    original.check_untouched()


@backends("memory", "http", "s3", "simplecache::http", "dir::http")
def test_stores_over_twins_are_equal_by_recipe(original: Original) -> None:
    """The same filesystem and path make equal stores; another path, or other options, do not."""
    first, second = stores_of(original), stores_of(original)
    assert first["filesystem"] == second["filesystem"] == first["mapper"]
    assert first["filesystem"] != ManagedStore.from_filesystem(original.filesystem, f"{original.path}/folder")
    assert first["filesystem"] != ManagedStore(original.url, storage_options=original.options)


def test_other_options_make_other_twins() -> None:
    """Options are compared by value."""
    made = [HTTPFileSystem(skip_instance_cache=True, block_size=size) for size in (1000, 1000, 2000)]
    stores = [ManagedStore.from_filesystem(each, "https://host/a") for each in made]
    assert stores[0] == stores[1]
    assert stores[0] != stores[2]


@backends("memory", "file", "http", "s3", "gs", "az", "ftp", "simplecache::http", "simplecache::s3", "zip::http")
def test_a_upath_names_a_place(everything: Everything, backend: str) -> None:
    """With its options, chains included; its own filesystem is not made."""
    place = everything.filled(backend)
    path = UPath(place.url, **place.options)
    with ManagedStore.from_upath(path) as store:
        assert read(store) == CONTENTS[KEY]
        assert not hasattr(path, "_fs_cached")
        assert pickle.loads(pickle.dumps(store)) == store == ManagedStore.from_upath(UPath(place.url, **place.options))


@backends("http", "s3")
def test_a_upath_below_another(everything: Everything, backend: str) -> None:
    """What is joined to a path is part of the place."""
    place = everything.filled(backend)
    with ManagedStore.from_upath(UPath(place.url, **place.options) / "folder") as store:
        value = sync(store.get("small", PROTOTYPE))
        assert value is not None
        assert value.to_bytes() == CONTENTS[KEY]


@backends("http", "s3", "gs")
def test_a_upath_in_use_is_untouched(everything: Everything, backend: str) -> None:
    """A path whose filesystem is open reads on while a store over it comes and goes."""
    place = everything.filled(backend)
    path = UPath(place.url, **place.options)
    try:
        assert (path / KEY).read_bytes() == CONTENTS[KEY]
        held = sessions_of(path.fs)
        with ManagedStore.from_upath(path) as store:
            assert read(store) == CONTENTS[KEY]
        assert all(now is then for now, then in zip(sessions_of(path.fs), held, strict=True))
        assert (path / KEY).read_bytes() == CONTENTS[KEY]
    finally:
        close(path.fs)


@backends("memory", "file", "ftp", "zip::http")
def test_an_asynchronous_wrapper_is_looked_through(original: Original) -> None:
    """zarr wraps synchronous filesystems itself: the twin is one of what is wrapped."""
    wrapper = AsyncFileSystemWrapper(original.filesystem, asynchronous=True)
    with ManagedStore.from_filesystem(wrapper, original.path) as store:
        assert read(store) == CONTENTS[KEY]
        assert store == ManagedStore.from_filesystem(original.filesystem, original.path)
    original.check_untouched()


@backends("http", "memory", "file")
def test_a_folder_of_a_filesystem_object(original: Original) -> None:
    """`DirFileSystem(path, fs)`: its positional arguments are understood, and the inner one gets a twin."""
    folder = DirFileSystem(f"{original.path}/folder", original.filesystem)
    with ManagedStore.from_filesystem(folder, "") as store:
        value = sync(store.get("small", PROTOTYPE))
        assert value is not None
        assert value.to_bytes() == CONTENTS[KEY]
    original.check_untouched()


class TheirHTTPFileSystem(HTTPFileSystem):
    """A subclass that no protocol is registered for, with a positional parameter of its own."""

    def __init__(self, flavour: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flavour = flavour


def test_a_subclass_that_is_not_registered(everything: Everything) -> None:
    """The twin is of the same class, from the same arguments, positional ones included."""
    place = everything.filled("http")
    theirs = TheirHTTPFileSystem("plain", skip_instance_cache=True)
    for store in (
        ManagedStore.from_filesystem(theirs, place.url),
        pickle.loads(pickle.dumps(ManagedStore.from_filesystem(theirs, place.url))),
    ):
        with store:
            assert read(store) == CONTENTS[KEY]
            assert type(store.fs) is TheirHTTPFileSystem
            assert store.fs.flavour == "plain"


def test_positional_arguments(everything: Everything) -> None:
    """What was given by position arrives under its name."""
    place = everything.filled("http")
    theirs = HTTPFileSystem(True, 12345, skip_instance_cache=True)
    with ManagedStore.from_filesystem(theirs, place.url) as store:
        assert read(store) == CONTENTS[KEY]
        assert store.fs.simple_links is True
        assert store.fs.block_size == 12345


def test_more_positional_arguments_than_names() -> None:
    """What came by ``*args`` has no name to be given by."""
    theirs = TheirHTTPFileSystem("plain", True, skip_instance_cache=True)
    with pytest.raises(ArgumentError, match=r"TheirHTTPFileSystem .* no names\. Give ManagedStore the URL"):
        ManagedStore.from_filesystem(theirs, "https://host/a")


def test_an_open_file_is_refused() -> None:
    """An archive over an open file cannot be opened a second time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", b"x")
    with pytest.raises(ArgumentError, match=r"ZipFileSystem was made from an open file, its option 'fo'.* a URL inst"):
        ManagedStore.from_filesystem(ZipFileSystem(io.BytesIO(stream.getvalue())), "")


def test_a_filesystem_that_was_not_made_in_the_usual_way() -> None:
    """One that does not know its options cannot have a twin."""
    half_made = HTTPFileSystem.__new__(HTTPFileSystem)
    with pytest.raises(ArgumentError, match=r"HTTPFileSystem was not made in the usual way.* the URL"):
        ManagedStore.from_filesystem(half_made, "https://host/a")


@pytest.mark.parametrize("wrong", [None, "https://host/a", 3, HTTPFileSystem, {}])
def test_wrong_types_are_refused(wrong: Any) -> None:
    """Each message names the argument, what was given and what would work."""
    kind = type(wrong).__name__
    with pytest.raises(ArgumentTypeError, match=rf"^fs must be .*fsspec\.filesystem.* got {kind}"):
        ManagedStore.from_filesystem(wrong, "a")
    with pytest.raises(ArgumentTypeError, match=rf"^fsmap must be .*get_mapper.* got {kind}"):
        ManagedStore.from_mapper(wrong)
    with pytest.raises(ArgumentTypeError, match=rf"^upath must be a UPath.* got {kind}"):
        ManagedStore.from_upath(wrong)


@pytest.mark.parametrize("path", [None, 3, b"a", UPath("memory://a")])
def test_the_path_must_be_a_string(path: Any) -> None:
    """In a filesystem, paths are strings."""
    with pytest.raises(ArgumentTypeError, match=rf"^path must be a string.* got {type(path).__name__}"):
        ManagedStore.from_filesystem(MemoryFileSystem(), path)


def test_the_other_arguments_are_checked_as_well() -> None:
    """`read_only` and `close_timeout` are those of the class."""
    filesystem = MemoryFileSystem()
    with pytest.raises(ArgumentTypeError, match="read_only"):
        ManagedStore.from_filesystem(filesystem, "a", read_only=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="close_timeout"):
        ManagedStore.from_mapper(filesystem.get_mapper("a"), close_timeout=-1)
    with pytest.raises(ArgumentTypeError, match="allowed_exceptions"):
        ManagedStore.from_upath(UPath("memory://a"), allowed_exceptions=KeyError)  # type: ignore[arg-type]
    assert ManagedStore.from_upath(UPath("memory://a"), read_only=True).read_only


def test_secrets_of_the_original_do_not_show() -> None:
    """The options of the twin are in no repr."""
    theirs = HTTPFileSystem(skip_instance_cache=True, client_kwargs={"headers": {"token": "hunter2"}})
    store = ManagedStore.from_filesystem(theirs, "https://user:hunter2@host/a?signature=hunter2")
    for text in (repr(store), str(store), repr(store._sessions.recipe)):
        assert "hunter2" not in text
