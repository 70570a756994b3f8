"""zarr's `open_group` and `open_array` as context managers, which close what they opened when their block is left."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import zarr
import zarr.api.asynchronous

from managed_store._leaving import Closable
from managed_store._lifecycle import Drain
from managed_store.errors import ArgumentError, ArgumentTypeError, ManagedStoreError
from managed_store.store import ManagedFSSpecStore

if TYPE_CHECKING:
    from os import PathLike

    from zarr import Array, AsyncArray, AsyncGroup, Group

__all__ = ["Opening", "open_array", "open_group"]

Mode = Literal["r", "r+", "a", "w", "w-"]
Format = Literal[2, 3]

S = TypeVar("S")
A = TypeVar("A")

_MODES = ("r", "r+", "a", "w", "w-")

# Parameters of zarr's functions that have no meaning where the store is made from a URL.
_STORES = frozenset({"store", "chunk_store"})


class Opening(Closable, Generic[S, A]):
    """What `open_group` and `open_array` return: opens when its block is entered, and closes when it is left.

    For ``with`` or ``async with``, once. Made by those functions, not by its class.
    """

    def __init__(
        self, name: str, store: ManagedFSSpecStore, opener: Callable[[], S], async_opener: Callable[[], Awaitable[A]]
    ) -> None:
        self._name = name
        self._store = store
        self._opener = opener
        self._async_opener = async_opener
        self._was_entered = False

    def __enter__(self) -> S:
        """Open, and return what zarr's synchronous function does."""
        self._enter()
        try:
            return self._opener()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    async def __aenter__(self) -> A:
        """Open on the running loop, and return what zarr's asynchronous function does."""
        self._enter()
        try:
            return await self._async_opener()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    def _enter(self) -> None:
        self._store.__enter__()  # which refuses if it is closed
        if self._was_entered:
            raise ManagedStoreError(
                f"This {self._name}({str(self._store)!r}) was entered already, and its block is not left yet. It "
                f"can be entered once: call {self._name} again for each block."
            )
        self._was_entered = True

    def _close(self, drain: Drain) -> None:
        self._store._close(drain)

    async def _aclose(self, drain: Drain) -> None:
        await self._store._aclose(drain)

    def __repr__(self) -> str:
        return f"<{self._name} of {self._store!r}>"

    # For whoever takes it for the group or array itself; type checkers say so already.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise AttributeError(f"{self._misused} It has no attribute {name!r}.")

        def __getitem__(self, key: Any) -> Any:
            raise TypeError(self._misused)

        def __await__(self) -> Any:
            raise TypeError(self._misused)

        @property
        def _misused(self) -> str:
            name = self.__dict__.get("_name", "open_group")
            return f"{name}() opens nothing by itself: use `with {name}(...) as opened:`, or `async with`."


def open_group(
    url: str | PathLike[str],
    *,
    mode: Mode = "a",
    path: str | None = None,
    storage_options: dict[str, Any] | None = None,
    zarr_format: Format | None = None,
    close_timeout: float = 5.0,
    **options: Any,
) -> Opening[Group, AsyncGroup]:
    """Open a zarr group by URL for the time of a block: ``with`` gives a ``Group``, ``async with`` an ``AsyncGroup``.

    The block owns a store as ``ManagedStore`` is one. Nothing is opened before the block is entered; if opening fails,
    nothing is left open.

    Parameters
    ----------
    url : str or path
        What to open, as for ``ManagedStore``.
    mode : {"a", "r", "r+", "w", "w-"}, default "a"
        As for ``zarr.open_group``, with its default: "r" reads what must exist, and refuses every write; "r+" reads
        and writes what must exist; "a" reads and writes, and makes a group where there is none; "w" makes one and
        deletes what was there; "w-" makes one where nothing may be.
    path : str, optional
        The path of the group in the store. The default is its root.
    storage_options : mapping, optional
        Options of the filesystem.
    zarr_format : {2, 3}, optional
        The format of zarr. By default it is found out, and a new group has zarr's default format.
    close_timeout : float, default 5.0
        Seconds that leaving may take at most, whatever a server or another loop does.
    **options
        What else the installed zarr's ``open_group`` takes, such as ``use_consolidated`` and ``attributes``.

    Returns
    -------
    Opening
        A context manager, for one block.

    Raises
    ------
    ArgumentError, ArgumentTypeError, MissingPackageError
        The URL, a storage option, the mode or the time cannot work, or zarr knows no such option. Raised by the call.
    zarr.errors.GroupNotFoundError
        There is no group. Raised when the block is entered, as whatever else zarr and the filesystem raise.
    StoreCloseError
        Something was still open after `close_timeout` seconds. Raised when the block is left.

    Warns
    -----
    ResourceWarning
        When a block was entered, never left, and the last of the group is dropped.

    Notes
    -----
    As for ``ManagedStore``: ``with`` works on zarr's own event loop, ``async with`` on the running one; after the
    block, the group raises ``StoreClosedError``. If the body raises, its exception is what comes out.

    Examples
    --------
    >>> from managed_store import open_group
    >>> with open_group("memory://opened.zarr", mode="w") as group:
    ...     array = group.create_array("numbers", shape=(4,), dtype="i4")
    >>> with open_group("memory://opened.zarr", mode="r") as group:
    ...     list(group)
    ['numbers']
    """
    return _opening(
        "open_group", url, storage_options, close_timeout, mode=mode, path=path, zarr_format=zarr_format, **options
    )


def open_array(
    url: str | PathLike[str],
    *,
    mode: Mode | None = None,
    path: str = "",
    storage_options: dict[str, Any] | None = None,
    zarr_format: Format | None = None,
    close_timeout: float = 5.0,
    **options: Any,
) -> Opening[Array[Any], AsyncArray[Any]]:
    """Open a zarr array by URL for the time of a block: ``with`` gives an ``Array``, ``async with`` an ``AsyncArray``.

    As `open_group`, for an array.

    Parameters
    ----------
    url : str or path
        What to open, as for ``ManagedStore``.
    mode : {"r", "r+", "a", "w", "w-"}, optional
        As for ``zarr.open_array``. By default, as zarr's, it reads and writes what must exist; "r" refuses every
        write; "a", "w" and "w-" make an array, for which `options` say its shape and type.
    path : str, default ""
        The path of the array in the store. The default is its root.
    storage_options : mapping, optional
        Options of the filesystem.
    zarr_format : {2, 3}, optional
        The format of zarr. By default it is found out, and a new array has zarr's default format.
    close_timeout : float, default 5.0
        Seconds that leaving may take at most, whatever a server or another loop does.
    **options
        What else the installed zarr's ``open_array`` and ``create`` take, such as ``shape``, ``dtype``, ``chunks``.

    Returns
    -------
    Opening
        A context manager, for one block.

    Raises
    ------
    ArgumentError, ArgumentTypeError, MissingPackageError
        The URL, a storage option, the mode or the time cannot work, or zarr knows no such option. Raised by the call.
    zarr.errors.ArrayNotFoundError
        There is no array; on zarr 3.1.0, ``FileNotFoundError``. Raised when the block is entered, as whatever else zarr
        and the filesystem raise.
    StoreCloseError
        Something was still open after `close_timeout` seconds. Raised when the block is left.

    Warns
    -----
    ResourceWarning
        When a block was entered, never left, and the last of the array is dropped.

    Notes
    -----
    As for `open_group`.

    Examples
    --------
    >>> from managed_store import open_array
    >>> with open_array("memory://array.zarr", mode="w", shape=(4,), dtype="i4", fill_value=7) as array:
    ...     array[1:] = 8
    >>> with open_array("memory://array.zarr", mode="r") as array:
    ...     int(array[:].sum())
    31
    """
    return _opening(
        "open_array", url, storage_options, close_timeout, mode=mode, path=path, zarr_format=zarr_format, **options
    )


def _opening(name: str, url: Any, storage_options: Any, close_timeout: Any, /, **arguments: Any) -> Opening[Any, Any]:
    mode = arguments["mode"]
    if mode is not None and mode not in _MODES:
        raise ArgumentError(f"mode must be one of {', '.join(map(repr, _MODES))}; got {mode!r}.")
    for argument in arguments.keys() - _known(name):
        raise ArgumentTypeError(
            f"{name}() makes its own store, and takes no {argument!r}: give it the url."
            if argument in _STORES
            else f"{name}() has no parameter {argument!r}, nor has that of zarr {zarr.__version__}, which takes: "
            f"{', '.join(sorted(_known(name)))}."
        )
    store = ManagedFSSpecStore(url, storage_options=storage_options, read_only=mode == "r", close_timeout=close_timeout)
    opener = functools.partial(getattr(zarr, name), store, **arguments)
    async_opener = functools.partial(getattr(zarr.api.asynchronous, name), store=store, **arguments)
    return Opening(name, store, opener, async_opener)


@functools.cache
def _known(name: str) -> frozenset[str]:
    """The parameters of a function of the installed zarr; what `open_array` does not know, it hands on to `create`."""
    functions = [getattr(zarr, name), zarr.create] if name == "open_array" else [getattr(zarr, name)]
    parameters = [each for function in functions for each in inspect.signature(function).parameters.values()]
    return frozenset(each.name for each in parameters if each.kind is not each.VAR_KEYWORD) - _STORES | {"mode"}
