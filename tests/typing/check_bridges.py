"""What type checkers see of the bridges to other packages."""

from __future__ import annotations

from typing import assert_type

import xarray

from managed_store.xarray import open_dataset, open_datatree


def datasets(url: str) -> None:
    with open_dataset(url, storage_options={"anon": True}, close_timeout=1, chunks={}) as dataset:
        assert_type(dataset, xarray.Dataset)
    with open_datatree(url) as tree:
        assert_type(tree, xarray.DataTree)


def refused(url: str) -> None:
    open_dataset(url, close_timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
