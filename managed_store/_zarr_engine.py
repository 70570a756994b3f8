"""xarray's engine ``managed_zarr``, which the functions of `managed_store.xarray` use too.

Light to import: xarray loads the engines of all installed packages when it is first asked for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

import managed_store
from managed_store._datasets import ClosingOfDataset
from managed_store.errors import MissingPackageError

try:
    from xarray import backends
except ModuleNotFoundError as error:
    if error.name != "xarray":
        raise
    raise MissingPackageError(
        "managed_store.xarray needs the package 'xarray': pip install 'managed-store[xarray]'.", name="xarray"
    ) from error

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

    from managed_store import ManagedStore

__all__ = ["Lent", "ManagedZarrBackendEntrypoint", "managed_store_at", "reads_only"]

_NOT_OF_THE_ENGINE = ("self", "store", "engine")
_PARAMETERS_OF_ZARR = [
    name for name in signature(backends.ZarrBackendEntrypoint.open_dataset).parameters if name not in _NOT_OF_THE_ENGINE
]


def managed_store_at(url: Any, storage_options: Any, close_timeout: Any, options: Mapping[str, Any]) -> ManagedStore:
    return managed_store.ManagedStore(
        url, storage_options=storage_options, read_only=reads_only(options), close_timeout=close_timeout
    )


def reads_only(options: Mapping[str, Any]) -> bool:
    return bool(options.get("mode", "r") == "r")


@dataclass(frozen=True, eq=False)
class Lent:
    """A store that the engine is lent by the functions of `managed_store.xarray`, which close it themselves.

    Not the store itself: xarray puts what it opens into sets, and asks for its ``path``.
    """

    store: ManagedStore

    def __str__(self) -> str:
        return str(self.store)


class ManagedZarrBackendEntrypoint(backends.BackendEntrypoint):
    """The engine ``managed_zarr``: opens zarr by URL, for ``xarray.open_dataset(url, engine="managed_zarr")``.

    The ``close()`` of what it opens closes the sessions. It takes the parameters of the engine ``zarr``, and
    ``close_timeout`` in seconds. Stores are for the engine ``zarr``, which closes nothing that it is given.
    """

    description = "Open zarr by URL, with connections that are closed with the dataset (managed_store)"
    supports_groups = True
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (*_PARAMETERS_OF_ZARR, "close_timeout")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return False: this engine is for those who ask for it by name.

        Whatever it can open, xarray's own engine ``zarr`` opens too. That a package is installed must not change which
        engine opens a URL, and who closes it.

        Parameters
        ----------
        filename_or_obj : object
            What is to be opened; not looked at.

        Returns
        -------
        bool
            False.
        """
        return False

    def open_dataset(self, filename_or_obj: Any, **options: Any) -> Dataset:
        """Open one group."""
        opened: Dataset = self._open("open_dataset", filename_or_obj, **options)
        return opened

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> DataTree:
        """Open a group and all groups below it, as a tree whose root closes the store."""
        opened: DataTree = self._open("open_datatree", filename_or_obj, **options)
        return opened

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, Dataset]:
        """Open a group and all groups below it, as datasets of which the last to be closed closes the store."""
        opened: dict[str, Dataset] = self._open("open_groups_as_dict", filename_or_obj, **options)
        return opened

    def _open(
        self,
        method: str,
        filename_or_obj: Any,
        *,
        storage_options: dict[str, Any] | None = None,
        close_timeout: float = 5.0,
        **options: Any,
    ) -> Any:
        function = getattr(backends.ZarrBackendEntrypoint(), method)
        if isinstance(filename_or_obj, Lent):
            store, opened = filename_or_obj.store, function(filename_or_obj.store, **options)
        else:
            store = managed_store_at(filename_or_obj, storage_options, close_timeout, options)
            with ExitStack() as on_failure:
                on_failure.enter_context(store)
                opened = function(store, **options)
                on_failure.pop_all()
        together: set[ClosingOfDataset] = set()
        for each in opened.values() if isinstance(opened, dict) else [opened]:
            each.encoding["source"] = str(store)
            if not isinstance(filename_or_obj, Lent):
                each.set_close(ClosingOfDataset(each._close, [store], together=together))
        return opened
