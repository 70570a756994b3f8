"""What type checkers see of a store: mypy and pyright read it. An error that is ignored is one that they must give."""

from __future__ import annotations

from typing import assert_type

import zarr
import zarr.api.asynchronous
from fsspec.asyn import AsyncFileSystem
from zarr.abc.store import Store

from managed_store import ManagedFSSpecStore, ManagedStore, Statistics


def synchronously(url: str) -> None:
    with ManagedStore(url, storage_options={"anon": True}, close_timeout=1) as store:
        assert_type(store, ManagedFSSpecStore)
        is_zarrs: Store = store
        assert_type(zarr.open_group(store, mode="r"), zarr.Group)
        assert_type(store.with_read_only(True), ManagedFSSpecStore)
        assert_type(store.statistics(), Statistics)
        assert_type(store.url, str)
        assert_type(store.path, str)
        assert_type(store.close_timeout, float)
        filesystem: AsyncFileSystem = store.fs
    assert_type(store.closed, bool)
    store.close()
    del is_zarrs, filesystem


async def asynchronously(url: str) -> None:
    async with ManagedStore(url) as store:
        assert_type(store, ManagedFSSpecStore)
        group = await zarr.api.asynchronous.open_group(store, mode="r")
        assert_type(group, zarr.AsyncGroup)
    await store.aclose()


class Derived(ManagedStore):
    """A subclass stays what it is."""


def derived(url: str) -> None:
    with Derived(url) as store:
        assert_type(store, Derived)
        assert_type(store.with_read_only(), Derived)
    assert_type(Derived.from_upath(None), Derived)


def refused() -> None:
    import managed_store

    managed_store.ManagedStor  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    ManagedStore()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ManagedStore("memory://a", {"anon": True})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ManagedStore("memory://a", close_timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ManagedStore("memory://a", read_only=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
