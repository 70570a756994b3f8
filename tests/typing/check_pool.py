"""What type checkers see of a pool."""

from __future__ import annotations

from typing import assert_type

from managed_store import ManagedFSSpecStore, PoolStatistics, StorePool


def synchronously(url: str) -> None:
    with StorePool(storage_options={"anon": True}, max_idle=30, max_filesystems=10) as pool:
        assert_type(pool, StorePool)
        with pool.store(url, read_only=True) as store:
            assert_type(store, ManagedFSSpecStore)
        assert_type(pool.statistics(), PoolStatistics)
    assert_type(pool.closed, bool)


async def asynchronously(url: str) -> None:
    async with StorePool() as pool:
        assert_type(pool, StorePool)
        async with pool.store(url) as store:
            assert_type(store, ManagedFSSpecStore)
    await pool.aclose()


def refused() -> None:
    StorePool(max_filesystems=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
