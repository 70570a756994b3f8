"""xarray: datasets that close what was opened for them, and the engine ``managed_zarr``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import managed_store
from managed_store._datasets import ClosingOfDataset
from managed_store._zarr_engine import Lent, ManagedZarrBackendEntrypoint, managed_store_at, reads_only
from managed_store.errors import ArgumentTypeError

# isort: split
import xarray as xr  # after the engine, which says what to install where there is none

if TYPE_CHECKING:
    from os import PathLike

    from xarray import Dataset, DataTree

__all__ = ["ManagedZarrBackendEntrypoint", "open_dataset", "open_datatree", "open_mfdataset"]

T = TypeVar("T", "Dataset", "DataTree")


def open_dataset(
    url: str | PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    close_timeout: float = 5.0,
    **options: Any,
) -> Dataset:
    """Open a zarr dataset by URL, as ``xarray.open_dataset`` does, with sessions that its ``close()`` closes.

    Parameters
    ----------
    url : str or path
        What to open, as for ``ManagedStore``.
    storage_options : mapping, optional
        Options of the filesystem.
    close_timeout : float, default 5.0
        Seconds that closing may take at most, whatever a server or another loop does.
    **options
        What else ``xarray.open_dataset`` takes for zarr: ``chunks``, ``group``, ``consolidated``, and so on.

    Returns
    -------
    xarray.Dataset
        The dataset. It may be used in a ``with`` block, or closed by ``close()``, as often as one likes.

    Raises
    ------
    ArgumentError, ArgumentTypeError, MissingPackageError
        An argument has a value that cannot work.
    StoreCloseError
        By the dataset's ``close()``: something was still open after `close_timeout` seconds.

    Warns
    -----
    ResourceWarning
        When the dataset and all that was derived from it are dropped unclosed. It is closed in the background.

    Notes
    -----
    *Closing* ends what was derived from the dataset, too: what has not been loaded by then raises ``StoreClosedError``.
    Of what is derived, only what xarray hands the closer on to (the results of ``isel``, ``sel``, ``head``) closes the
    sessions; all else owns nothing.

    *Processes.* A dataset with dask chunks can be pickled. Its copies open sessions of their own, from a pool of the
    process that they are in; closing the dataset here does not end those.

    *Loops and threads.* As for ``ManagedStore``: ``load()`` works on zarr's event loop, ``load_async()``, where xarray
    has it, on the running one. ``close()`` waits for every loop but the one that it is called on, whose connections it
    cuts off.

    Examples
    --------
    >>> import xarray as xr
    >>> from managed_store import ManagedStore
    >>> from managed_store.xarray import open_dataset
    >>> with ManagedStore("memory://dataset.zarr") as store:
    ...     backend = xr.Dataset({"a": ("x", [1, 2, 3])}).to_zarr(store, consolidated=False)
    >>> with open_dataset("memory://dataset.zarr", consolidated=False) as ds:
    ...     int(ds["a"].sum())
    6
    """
    return _opened(xr.open_dataset, url, storage_options, close_timeout, options)


def open_datatree(
    url: str | PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    close_timeout: float = 5.0,
    **options: Any,
) -> DataTree:
    """Open all groups of a zarr hierarchy by URL, as ``xarray.open_datatree`` does.

    The tree closes the sessions; one of its nodes by itself does not, but for the root.

    Parameters
    ----------
    url : str or path
        What to open, as for ``ManagedStore``.
    storage_options : mapping, optional
        Options of the filesystem.
    close_timeout : float, default 5.0
        Seconds that closing may take at most.
    **options
        What else ``xarray.open_datatree`` takes for zarr.

    Returns
    -------
    xarray.DataTree
        The tree, to be closed as a dataset is.

    Raises
    ------
    ArgumentError, ArgumentTypeError, MissingPackageError
        An argument has a value that cannot work.
    StoreCloseError
        By the tree's ``close()``: something was still open after `close_timeout` seconds.

    Warns
    -----
    ResourceWarning
        As for `open_dataset`.
    """
    return _opened(xr.open_datatree, url, storage_options, close_timeout, options)


def open_mfdataset(
    urls: Sequence[Any],
    *,
    storage_options: dict[str, Any] | None = None,
    close_timeout: float = 5.0,
    **options: Any,
) -> Dataset:
    """Open many zarr datasets as one, as ``xarray.open_mfdataset`` does, with one session for all of them.

    Parameters
    ----------
    urls : sequence of str or path
        What to open; lists of lists for ``combine="nested"``.
    storage_options : mapping, optional
        Options of the filesystem, for all of them.
    close_timeout : float, default 5.0
        Seconds that closing may take at most, for all of them together.
    **options
        What else ``xarray.open_mfdataset`` takes. With ``parallel=True`` the datasets are opened on threads of this
        process, whose sessions they share.

    Returns
    -------
    xarray.Dataset
        The dataset, to be closed as that of `open_dataset`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        An argument has a value that cannot work.
    MissingPackageError
        The package of a filesystem is not installed.
    StoreCloseError
        By the dataset's ``close()``: something was still open after `close_timeout` seconds.

    Warns
    -----
    ResourceWarning
        As for `open_dataset`.
    """
    _check(options)
    if isinstance(urls, str | bytes) or not isinstance(urls, Sequence):
        raise ArgumentTypeError(
            f"urls must be a list of URLs, such as ['gs://bucket/1.zarr', 'gs://bucket/2.zarr']; got "
            f"{type(urls).__name__}. Patterns are not expanded; for one dataset there is open_dataset."
        )
    pool = managed_store.StorePool(storage_options=storage_options, close_timeout=close_timeout)
    lent: dict[Any, Lent] = {}

    def lend(url: Any) -> Any:
        if isinstance(url, list | tuple):
            return [lend(each) for each in url]
        store = pool.store(url, read_only=reads_only(options))
        return lent.setdefault(url, Lent(store))

    with ExitStack() as on_failure:
        on_failure.enter_context(pool)
        paths = lend(urls)
        if options.get("attrs_file") is not None:
            options["attrs_file"] = lend(options["attrs_file"])
        with _on_threads() if options.get("parallel") else nullcontext():
            dataset = xr.open_mfdataset(paths, engine=ManagedZarrBackendEntrypoint, **options)
        on_failure.pop_all()
    stores = [each.store for each in lent.values()]
    dataset.set_close(ClosingOfDataset(dataset._close, [pool], pickled=stores))
    return dataset


def _on_threads() -> AbstractContextManager[Any]:
    """For ``parallel=True``: workers elsewhere would open sessions that the pool could not close."""
    import dask

    return dask.config.set(scheduler="threads")


def _opened(
    function: Callable[..., T], url: Any, storage_options: Any, close_timeout: float, options: dict[str, Any]
) -> T:
    _check(options)
    store = managed_store_at(url, storage_options, close_timeout, options)
    with ExitStack() as on_failure:
        on_failure.enter_context(store)
        opened = function(Lent(store), engine=ManagedZarrBackendEntrypoint, **options)
        on_failure.pop_all()
    opened.set_close(ClosingOfDataset(opened._close, [store]))
    return opened


def _check(options: Mapping[str, Any]) -> None:
    if "engine" in options:
        raise ArgumentTypeError(
            "engine must be left out: this opens zarr, with an engine that closes it. xarray.open_dataset takes any "
            "engine, 'managed_zarr' too."
        )
    if "backend_kwargs" in options:
        raise ArgumentTypeError("backend_kwargs must be left out: give what is in it as parameters of their own.")
