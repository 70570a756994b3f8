"""What type checkers see of `open_group` and `open_array`: ``with`` and ``async with`` give different things."""

from __future__ import annotations

from typing import Any, assert_type

import zarr

from managed_store import open_array, open_group


def synchronously(url: str) -> None:
    with open_group(url, mode="r", use_consolidated=False) as group:
        assert_type(group, zarr.Group)
    with open_array(url, path="numbers", mode="r") as array:
        assert_type(array, zarr.Array[Any])


async def asynchronously(url: str) -> None:
    async with open_group(url, mode="r", storage_options={"anon": True}) as group:
        assert_type(group, zarr.AsyncGroup)
    async with open_array(url, zarr_format=3) as array:
        assert_type(array, zarr.AsyncArray[Any])


def refused(url: str) -> None:
    open_group(url, mode="read")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    open_array(url, zarr_format=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
