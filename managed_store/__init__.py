"""The missing owner of remote zarr stores: opens them, and closes what they opened.

>>> import zarr
>>> from managed_store import ManagedStore
>>> with ManagedStore("memory://doctest.zarr") as store:
...     group = zarr.create_group(store)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from managed_store._closers import Closer as Closer
    from managed_store._closers import register_closer as register_closer
    from managed_store._statistics import PoolStatistics as PoolStatistics
    from managed_store._statistics import Statistics as Statistics
    from managed_store.api import open_array as open_array
    from managed_store.api import open_group as open_group
    from managed_store.errors import ArgumentError as ArgumentError
    from managed_store.errors import ArgumentTypeError as ArgumentTypeError
    from managed_store.errors import ManagedStoreError as ManagedStoreError
    from managed_store.errors import MissingPackageError as MissingPackageError
    from managed_store.errors import StoreClosedError as StoreClosedError
    from managed_store.errors import StoreCloseError as StoreCloseError
    from managed_store.errors import StoreOpenError as StoreOpenError
    from managed_store.errors import UnknownProtocolError as UnknownProtocolError
    from managed_store.pool import StorePool as StorePool
    from managed_store.store import ManagedFSSpecStore as ManagedFSSpecStore
    from managed_store.store import ManagedStore as ManagedStore

# Loaded when first asked for (PEP 562): a pytest plugin must not import zarr into everybody's test run.
_EXPORTS = {
    "ArgumentError": "errors",
    "ArgumentTypeError": "errors",
    "Closer": "_closers",
    "ManagedFSSpecStore": "store",
    "ManagedStore": "store",
    "ManagedStoreError": "errors",
    "MissingPackageError": "errors",
    "PoolStatistics": "_statistics",
    "Statistics": "_statistics",
    "StoreCloseError": "errors",
    "StoreClosedError": "errors",
    "StoreOpenError": "errors",
    "StorePool": "pool",
    "UnknownProtocolError": "errors",
    "open_array": "api",
    "open_group": "api",
    "register_closer": "_closers",
}

__all__ = ["__version__", *_EXPORTS]


if not TYPE_CHECKING:  # a type checker would take it that there is every name

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
