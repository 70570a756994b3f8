"""Filesystems of other people stay as they are: those that a store is laid over, and those of fsspec's cache."""

from __future__ import annotations

import asyncio
from typing import Any

import fsspec
import pytest
from fsspec.implementations.http import HTTPFileSystem
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreOpenError
from tests.every_backend import CONTENTS, Everything, Place, backends, everything
from tests.originals import Original, close

__all__ = ["everything"]  # the fixture

PROTOTYPE = default_buffer_prototype()
KEY = "folder/small"


async def aread(store: Any) -> bytes:
    """A value of the tree, on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return bytes(value.to_bytes())


def read(store: Any) -> bytes:
    """The same on zarr's loop."""
    return sync(aread(store))


def used_filesystem(place: Place) -> Any:
    """A private, synchronous filesystem of the user's, in use."""
    filesystem = fsspec.get_filesystem_class(place.url.partition(":")[0])(skip_instance_cache=True, **place.options)
    assert filesystem.cat_file(f"{place.url}/{KEY}") == CONTENTS[KEY]
    return filesystem


CACHES = ("simplecache", "filecache", "blockcache")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # fsspec's cache of blocks drops the file it maps
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("outer", ["dir", *CACHES, "reference"])
def test_a_filesystem_among_the_options_is_borrowed(outer: str, everything: Everything) -> None:
    """Its session is the same and open, its finalizers and methods are its own, and it works: before, during, after."""
    place = everything.filled("http")
    theirs = used_filesystem(place)
    try:
        session, attributes, reducer = theirs._session, set(vars(theirs)), theirs.set_session
        match outer:
            case "dir":
                url, options = "dir://", {"fs": theirs, "path": place.url}
            case "reference":
                table = {"version": 1, "refs": {KEY: [f"{place.url}/{KEY}"]}}
                url, options = "reference://", {"fo": table, "fs": theirs}
            case _:
                url, options = f"{outer}::{place.url}", {"fs": theirs}
        for use in (read, lambda store: asyncio.run(aread(store))):
            with ManagedStore(url, storage_options=options) as store:
                assert use(store) == CONTENTS[KEY]
                assert theirs.cat_file(f"{place.url}/{KEY}") == CONTENTS[KEY]
            assert not session.closed
            assert theirs._session is session
            assert set(vars(theirs)) == attributes
            assert theirs.set_session == reducer
            assert theirs.asynchronous is False
            assert theirs.cat_file(f"{place.url}/{KEY}") == CONTENTS[KEY]
    finally:
        fsspec.asyn.sync(theirs.loop, theirs._session.close)


async def test_an_asynchronous_filesystem_among_the_options(everything: Everything) -> None:
    """It is bound to the loop that it was opened on: there it serves, elsewhere the error says why not."""
    place = everything.filled("http")
    theirs = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
    session = await theirs.set_session()
    try:
        async with ManagedStore("dir://", storage_options={"fs": theirs, "path": place.url}) as store:
            assert await aread(store) == CONTENTS[KEY]
            with pytest.raises(StoreOpenError, match=r"\['fs'\] is a HTTPFileSystem that belongs to the event loop"):
                await asyncio.to_thread(read, store)
        assert not session.closed
        assert await theirs._cat_file(f"{place.url}/{KEY}") == CONTENTS[KEY]
    finally:
        await session.close()


@backends("http", "s3", "gs", "ftp", "simplecache::http", "memory")
def test_unrelated_use_through_fsspecs_cache_is_undisturbed(backend: str, everything: Everything) -> None:
    """The same URL with the same options, by way of fsspec's own cache: before, during and after."""
    place = everything.filled(backend)
    before = Original(place)
    try:
        with place.store() as store:
            assert read(store) == CONTENTS[KEY]
            before.check_untouched()
            during, _ = fsspec.url_to_fs(place.url, **place.options)
            assert (during is before.filesystem) == before.cached
            assert asyncio.run(aread(store)) == CONTENTS[KEY]
        before.check_untouched()
        after, _ = fsspec.url_to_fs(place.url, **place.options)
        assert (after is before.filesystem) == before.cached
        with place.store() as store:
            assert read(store) == CONTENTS[KEY]
            before.check_untouched()
    finally:
        close(before.filesystem)
