"""Every exception of this package, as a tree, grouped by what a handler would do about it.

    ManagedStoreError
    ├── StoreClosedError        (RuntimeError)  used after close, or cut off by it: make a new store
    ├── StoreOpenError          (RuntimeError)  the backend refused the URL or the options: its error is the cause
    ├── StoreCloseError         (RuntimeError)  leaving the store could not release everything: see .left_open
    ├── ArgumentError           (ValueError)    an argument has a value that cannot work: correct the call
    │   └── UnknownProtocolError                the URL's protocol is not one that fsspec knows
    ├── ArgumentTypeError       (TypeError)     an argument has a type that cannot work: correct the call
    ├── MissingPackageError     (ImportError)   the URL needs a package that is not installed: install it
    └── LeakError               (AssertionError) a checked block has left something open: see .report

    LeakWarning                 (UserWarning)   the same, where a warning was asked for

None of them derives from ``KeyError``, ``FileNotFoundError`` or (but for bad arguments) ``ValueError``:
zarr and xarray read those as "no such key", and a closed store would look like an empty one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "LeakError",
    "LeakWarning",
    "ManagedStoreError",
    "MissingPackageError",
    "StoreCloseError",
    "StoreClosedError",
    "StoreOpenError",
    "UnknownProtocolError",
]


class ManagedStoreError(Exception):
    """Base class of every exception that managed_store raises itself."""


class StoreClosedError(ManagedStoreError, RuntimeError):
    """The store is closed, or was closed while this request was under way.

    Closing is final: nothing reopens a session quietly. Make a new store, or move the use inside the
    ``with`` block.
    """


class StoreOpenError(ManagedStoreError, RuntimeError):
    """The filesystem of a store could not be built: the backend rejected the URL or the options.

    Or it must not be used here: an option is bound to another event loop, or gRPC was lost in a fork. The backend's own
    error is the cause, if there is one. It is not raised itself, because backends reject options with ``KeyError`` or
    ``ValueError``, which zarr would read as "no such group".
    """


class StoreCloseError(ManagedStoreError, RuntimeError):
    """Something that the store had opened was still open when closing it had to return.

    The store is closed all the same. What is named here lives on a loop that did not answer in time, or could
    not be cut off safely.

    Parameters
    ----------
    message : str
        What happened and to which store; never a secret.
    left_open : sequence of str, optional
        One entry for each thing that is still open.

    Attributes
    ----------
    left_open : tuple of str
        One entry for each thing that is still open.
    """

    def __init__(self, message: str, left_open: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.left_open: tuple[str, ...] = tuple(left_open)

    def __reduce__(self) -> tuple[type[StoreCloseError], tuple[str, tuple[str, ...]]]:
        # BaseException's own pickle would forget `left_open`.
        return type(self), (str(self), self.left_open)


class ArgumentError(ManagedStoreError, ValueError):
    """An argument has a value that cannot work. The message names it, what was given, and what would work."""


class UnknownProtocolError(ArgumentError):
    """The protocol of the URL is not one that fsspec knows."""


class ArgumentTypeError(ManagedStoreError, TypeError):
    """An argument has a type that cannot work. The message names it, what was given, and what would work."""


class MissingPackageError(ManagedStoreError, ImportError):
    """The URL needs a package that is not installed. The message says what to install."""


class LeakError(ManagedStoreError, AssertionError):
    """What ran under `managed_store.testing.leak_check` has left something open.

    Parameters
    ----------
    message : str
        What was left open and where it was opened; never a secret.
    report : managed_store.testing.LeakReport
        The same as data. Typed loosely: the errors know nothing of what lives above them.

    Attributes
    ----------
    report : managed_store.testing.LeakReport
        What was left open.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[type[LeakError], tuple[str, Any]]:
        # BaseException's own pickle would forget `report`.
        return type(self), (str(self), self.report)


class LeakWarning(UserWarning):
    """What ran under `managed_store.testing.leak_check` with ``on_leak="warn"`` has left something open."""
