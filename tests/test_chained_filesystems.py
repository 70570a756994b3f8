"""The filesystems of a chain: where options arrive, that none is fsspec's to share, and that all are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.implementations.cached import SimpleCacheFileSystem
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.reference import ReferenceFileSystem
from fsspec.implementations.zip import ZipFileSystem
from fsspec.spec import AbstractFileSystem
from s3fs import S3FileSystem
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreOpenError
from tests.every_backend import CONTENTS, Everything, backends, everything

__all__ = ["everything"]  # the fixture

PROTOTYPE = default_buffer_prototype()
KEY = "folder/small"
SECRET = "hunter2"


async def aread(store: Any) -> bytes:
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return bytes(value.to_bytes())


def read(store: Any) -> bytes:
    return sync(aread(store))


def layers_of(store: ManagedStore) -> list[Any]:
    """Every filesystem that was built for the store on zarr's loop, outermost first."""
    _ = store.fs
    (session,) = store._sessions._sessions.values()
    assert session.built is not None
    return list(session.built.layer.filesystems())


def of_class(store: ManagedStore, cls: type) -> Any:
    (found,) = (
        each
        for each in layers_of(store)
        if isinstance(object.__getattribute__(each, "__class__"), type) and type(each) is cls
    )
    return found


def test_options_arrive_at_their_level(everything: Everything, tmp_path: Any) -> None:
    """Each filesystem of a chain gets its own options, with those that the URL holds, and no others."""
    place = everything.filled("zip::simplecache::http")
    options = {
        "zip": {"mode": "r", "allowZip64": False},
        "simplecache": {"cache_storage": str(tmp_path), "check_files": True},
        "http": {"block_size": 54321, "client_kwargs": {"headers": {"x-level": "inner"}}},
    }
    with ManagedStore(place.url, storage_options=options) as store:
        assert read(store) == CONTENTS[KEY]
        assert of_class(store, ZipFileSystem).force_zip_64 is False
        assert object.__getattribute__(of_class(store, SimpleCacheFileSystem), "__dict__")["storage"] == [str(tmp_path)]
        inner = of_class(store, HTTPFileSystem)
        assert inner.block_size == 54321
        assert inner.client_kwargs == {"headers": {"x-level": "inner"}}
    assert options["http"] == {"block_size": 54321, "client_kwargs": {"headers": {"x-level": "inner"}}}
    assert any(tmp_path.iterdir())  # a folder of the user's is kept


def test_options_of_the_outermost_may_stand_by_themselves(everything: Everything, tmp_path: Any) -> None:
    """As everywhere in fsspec; with those of the others beside them."""
    place = everything.filled("simplecache::s3")
    options = {
        "cache_storage": str(tmp_path),
        "s3": {**everything.filled("s3").options, "default_block_size": 7_000_000},
    }
    with ManagedStore(place.url, storage_options=options) as store:
        assert read(store) == CONTENTS[KEY]
        inner = of_class(store, S3FileSystem)
        assert (inner.key, inner.secret, inner.default_block_size) == ("testing", "testing", 7_000_000)
        assert object.__getattribute__(of_class(store, SimpleCacheFileSystem), "__dict__")["storage"] == [str(tmp_path)]


@pytest.mark.parametrize("inner", ["http", "s3"])
def test_target_options_arrive(inner: str, everything: Everything) -> None:
    """fsspec's other way to say what a filesystem is laid over: `target_protocol` and `target_options`."""
    place = everything.filled(inner)
    cls, option = {"http": (HTTPFileSystem, "block_size"), "s3": (S3FileSystem, "default_block_size")}[inner]
    target_options = {**place.options, option: 6_000_000}
    options = {"target_protocol": inner, "target_options": target_options}
    location = place.url if inner == "http" else place.url.removeprefix("s3://")
    with ManagedStore(f"simplecache://{location}", storage_options=options) as store:
        assert read(store) == CONTENTS[KEY]
        assert getattr(of_class(store, cls), option) == 6_000_000


@pytest.mark.parametrize("inner", ["http", "s3"])
def test_target_options_of_a_chain_are_not_lost(inner: str, everything: Everything) -> None:
    """What a UPath's storage options look like: the URL names the inner filesystem, `target_options` are for it."""
    place = everything.filled(inner)
    cls, option = {"http": (HTTPFileSystem, "block_size"), "s3": (S3FileSystem, "default_block_size")}[inner]
    options = {"target_protocol": inner, "target_options": {**place.options, option: 6_000_000}}
    with ManagedStore(f"simplecache::{place.url}", storage_options=options) as store:
        assert getattr(of_class(store, cls), option) == 6_000_000
        assert read(store) == CONTENTS[KEY]


def subclasses_of(cls: Any) -> Iterator[Any]:
    yield cls
    for each in cls.__subclasses__():
        yield from subclasses_of(each)


def instance_cache() -> dict[str, dict[Any, int]]:
    """What fsspec's cache of instances holds, of every class."""
    return {
        f"{cls.__module__}.{cls.__qualname__}": {token: id(each) for token, each in cls._cache.items()}
        for cls in subclasses_of(AbstractFileSystem)
    }


CHAINS = (
    *("simplecache::http", "filecache::http", "blockcache::http", "dir::http", "zip::http", "tar::http"),
    *("simplecache::s3", "filecache::s3", "dir::s3", "zip::simplecache::http", "reference", "reference::http"),
    *("reference::simplecache::http",),
)  # fmt: skip


@backends(*CHAINS)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # fsspec's cache of blocks drops the file it maps
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("api", ["sync", "async"])
def test_nothing_of_a_chain_touches_fsspecs_cache(backend: str, api: str, everything: Everything) -> None:
    """Before, while it is open, and afterwards it holds the same instances; and the chain uses none of those."""
    place = everything.filled(backend)
    with place.store() as first:  # which imports the backends
        read(first)
    theirs: Any = fsspec.filesystem("http")  # whoever uses the same protocol, with the same options
    before = instance_cache()
    held = {number for instances in before.values() for number in instances.values()}
    store = place.store()

    async def main() -> None:
        async with store:
            assert await aread(store) == CONTENTS[KEY]
            check()

    def check() -> None:
        assert instance_cache() == before
        sessions = tuple(store._sessions._sessions.values())
        assert len(sessions) == 1
        for session in sessions:
            assert session.built is not None
            assert not held & {id(each) for each in session.built.layer.filesystems()}

    if api == "sync":
        with store:
            assert read(store) == CONTENTS[KEY]
            check()
    else:
        asyncio.run(main())
    assert instance_cache() == before
    assert theirs._session is None
    HTTPFileSystem.clear_instance_cache()


def made_by_options(everything: Everything) -> dict[str, dict[str, Any]]:
    place = everything.filled("http")
    return {
        "simplecache": {"url": f"simplecache://{place.url}", "storage_options": {"target_protocol": "http"}},
        "dir": {"url": "dir://", "storage_options": {"target_protocol": "http", "path": place.url}},
        "zip": {
            "url": "zip://",
            "storage_options": {"fo": everything.filled("zip::http").url.removeprefix("zip::")},
        },
    }


@pytest.mark.parametrize("outer", ["simplecache", "dir", "zip"])
def test_chains_by_options_touch_no_cache_either(outer: str, everything: Everything) -> None:
    """`target_protocol` and `fo` instead of a chain in the URL."""
    arguments = made_by_options(everything)[outer]
    with ManagedStore(**arguments) as store:
        read(store)
    before = instance_cache()
    with ManagedStore(**arguments) as store:
        assert read(store) == CONTENTS[KEY]
        assert instance_cache() == before
    assert instance_cache() == before


DELETES = {
    "memory": True, "http": False, "s3": True, "ftp": True, "dir::s3": True, "dir::http": False, "zip::http": False,
    "tar::http": False, "simplecache::http": False, "simplecache::s3": True, "reference::http": False,
}  # fmt: skip


@backends(*DELETES)
def test_whether_deletes_are_supported(backend: str, everything: Everything) -> None:
    """A chain deletes where the filesystem that it writes to does."""
    with everything.filled(backend).store() as store:
        read(store)
        assert store.supports_deletes is DELETES[backend]
    if DELETES[backend] and backend != "ftp":
        with everything.empty(backend).store() as store:
            assert store.supports_deletes
            sync(store.set("a", cpu.Buffer.from_bytes(b"x")))
            assert sync(store.exists("a"))
            sync(store.delete("a"))
            assert not sync(store.exists("a"))


@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize(
    "url", ["zip::simplecache::{zip}", "dir://folder::simplecache::{root}", "dir://folder::dir::{root}"]
)
def test_chains_three_deep(url: str, api: str, everything: Everything) -> None:
    """Each level does its part, and all are closed."""
    server = everything.server("http")
    place = everything.filled("http")
    text = url.format(zip=everything.filled("zip::http").url.removeprefix("zip::"), root=place.url)
    key = KEY if text.startswith("zip") else KEY.partition("/")[2]
    before, opened = server.connections(), server.opened()
    store = ManagedStore(text)

    async def check() -> None:
        value = await store.get(key, PROTOTYPE)
        assert value is not None
        assert value.to_bytes() == CONTENTS[KEY]
        assert server.opened() > opened

    async def main() -> None:
        async with store:
            await check()

    if api == "async":
        asyncio.run(main())
    else:
        with store:
            sync(check())
    assert server.wait_for_connections(before) <= before


def test_a_chain_that_cannot_be_built_leaves_nothing_open(everything: Everything) -> None:
    """The innermost is open when the outermost refuses: it is closed again."""
    server = everything.server("http")
    (server.root / "broken.zip").write_bytes(b"this is no archive" * 100)
    opened = server.connections()
    with ManagedStore(f"zip::simplecache::{server.url}/broken.zip") as store:
        with pytest.raises(StoreOpenError, match="BadZipFile"):
            read(store)
    assert server.wait_for_connections(opened) == opened
    with ManagedStore(f"zip::{server.url}/broken.zip") as store:
        with pytest.raises(StoreOpenError, match="BadZipFile"):
            read(store)
        assert server.wait_for_connections(opened) == opened


def test_memory_in_a_chain(everything: Everything) -> None:
    """What lives in memory is shared by its class, and not by an instance."""
    place = everything.filled("memory")
    with ManagedStore(f"simplecache::{place.url}") as store:
        assert read(store) == CONTENTS[KEY]
        assert type(of_class(store, MemoryFileSystem)) is MemoryFileSystem
    assert ReferenceFileSystem is not None
