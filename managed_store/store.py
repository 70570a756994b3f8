"""The store, and all ways to make one: from a URL, over a twin of a filesystem, by a pool, from a pickle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from managed_store import _process  # noqa: F401 - registers the hooks for exit and fork
from managed_store._arguments import caller, checked_exceptions, checked_flag, checked_seconds
from managed_store._handle import Handle
from managed_store._owners import SessionOwner
from managed_store._recipe import Recipe
from managed_store._twins import recipe_of_filesystem, recipe_of_mapper, recipe_of_upath

if TYPE_CHECKING:
    from fsspec.mapping import FSMap
    from fsspec.spec import AbstractFileSystem

    from managed_store._leases import Lease

__all__ = ["ManagedFSSpecStore", "ManagedStore"]

ALLOWED_EXCEPTIONS: tuple[type[Exception], ...] = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What a filesystem raises for a missing key: the same as zarr's FsspecStore takes it for."""


class ManagedFSSpecStore(Handle):
    """A zarr store over any fsspec URL that owns what it opens, and closes it when you leave.

    It wraps zarr's ``FsspecStore``. Its filesystems are private, found in no cache and shared with nobody; there is
    one for each event loop that uses the store, opened on that loop at first use and closed there. Nothing is opened
    by the constructor.

    Parameters
    ----------
    url : str
        What to open: a URL that fsspec knows, such as ``"https://host/data.zarr"`` or ``"gs://bucket/data.zarr"``, or
        a local path.
    storage_options : mapping, optional
        Options of the filesystem, as in ``zarr.open_group``. Containers are copied; live objects (a credential) are
        borrowed and never closed.
    read_only : bool, default False
        Whether to refuse every write.
    allowed_exceptions : tuple of exception types, optional
        Exceptions of the filesystem that mean "no such key". The default is that of zarr's ``FsspecStore``.
    close_timeout : float, default 5.0
        Seconds that leaving may take at most, whatever a server or another loop does.

    Raises
    ------
    ArgumentError
        An argument has a value that cannot work: an empty URL, an unknown protocol, a negative `close_timeout`, an
        option that contradicts what a managed store does.
    ArgumentTypeError
        `url` is no string or path, `storage_options` no mapping, `read_only` no bool, `close_timeout` no number, or
        `allowed_exceptions` no tuple of exception types.
    MissingPackageError
        The package behind the protocol is not installed.

    Warns
    -----
    ResourceWarning
        When the last handle of the store is dropped while something is open. The sessions are closed in the
        background then.

    Notes
    -----
    *Loops.* Use through zarr's synchronous API happens on zarr's own event loop; use through the asynchronous API, on
    the caller's running loop. Both may be mixed, from several threads and loops: each loop has a session of its own.
    A loop that ends (``asyncio.run``) takes its session with it, and the store goes on working on the others.

    *Closing.* Leaving ``with`` or ``async with`` waits until every session has been closed on its own loop. Requests
    in flight may finish in most of `close_timeout`; when the body raised, only writes may. The rest is cut off, and
    raises ``StoreClosedError``. Closing is final.

    *Handles.* zarr derives a read-only handle for ``mode="r"``. Such a handle keeps the sessions alive while it lives,
    and closing it closes it alone, unless it is the last; closing the store itself ends them all.

    *Errors.* What only the filesystem or the server can reject is raised at first use.

    Examples
    --------
    >>> import zarr
    >>> from managed_store import ManagedStore
    >>> with ManagedStore("memory://example.zarr") as store:
    ...     array = zarr.create_array(store, name="a", shape=(4,), dtype="i4")
    ...     array[:] = 7
    ...     int(zarr.open_group(store, mode="r")["a"][:].sum())
    28
    >>> store.closed
    True
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: dict[str, Any] | None = None,
        read_only: bool = False,
        allowed_exceptions: tuple[type[Exception], ...] = ALLOWED_EXCEPTIONS,
        close_timeout: float = 5.0,
    ) -> None:
        self._make(Recipe.checked(url, storage_options), read_only, allowed_exceptions, close_timeout)

    @classmethod
    def from_upath(
        cls,
        upath: Any,
        *,
        read_only: bool = False,
        allowed_exceptions: tuple[type[Exception], ...] = ALLOWED_EXCEPTIONS,
        close_timeout: float = 5.0,
    ) -> Self:
        """Make a store at the place that a ``upath.UPath`` names.

        The filesystem of `upath` is not asked for, so that it is not made either.

        Parameters
        ----------
        upath : upath.UPath or pathlib.Path
            A URL with its storage options, or a local path.
        read_only : bool, default False
            Whether to refuse every write.
        allowed_exceptions : tuple of exception types, optional
            Exceptions of the filesystem that mean "no such key".
        close_timeout : float, default 5.0
            Seconds that leaving may take at most.

        Returns
        -------
        ManagedFSSpecStore
            A store with filesystems of its own.

        Raises
        ------
        ArgumentTypeError
            `upath` is neither.
        ArgumentError, MissingPackageError
            As for the class.
        """
        return cls._made(recipe_of_upath(upath), read_only, allowed_exceptions, close_timeout)

    @classmethod
    def from_mapper(
        cls,
        fsmap: FSMap,
        *,
        read_only: bool = False,
        allowed_exceptions: tuple[type[Exception], ...] = ALLOWED_EXCEPTIONS,
        close_timeout: float = 5.0,
    ) -> Self:
        """Make a store over a private twin of the filesystem of a mapping, which stays untouched and usable.

        Parameters
        ----------
        fsmap : fsspec.mapping.FSMap
            What ``fsspec.get_mapper(url)`` returns.
        read_only : bool, default False
            Whether to refuse every write.
        allowed_exceptions : tuple of exception types, optional
            Exceptions of the filesystem that mean "no such key".
        close_timeout : float, default 5.0
            Seconds that leaving may take at most.

        Returns
        -------
        ManagedFSSpecStore
            A store with filesystems of its own.

        Raises
        ------
        ArgumentTypeError
            `fsmap` is no such mapping.
        ArgumentError
            Its filesystem cannot be made a second time, as in `from_filesystem`.
        """
        return cls._made(recipe_of_mapper(fsmap), read_only, allowed_exceptions, close_timeout)

    @classmethod
    def from_filesystem(
        cls,
        fs: AbstractFileSystem,
        path: str,
        *,
        read_only: bool = False,
        allowed_exceptions: tuple[type[Exception], ...] = ALLOWED_EXCEPTIONS,
        close_timeout: float = 5.0,
    ) -> Self:
        """Make a store over a private twin of a filesystem, which stays untouched and usable.

        Parameters
        ----------
        fs : fsspec.spec.AbstractFileSystem
            A filesystem. The twin is made by its class from the arguments that `fs` was made from; filesystems among
            them get twins too, and other live objects, such as a credential, are borrowed.
        path : str
            The root of the store in that filesystem, such as ``"bucket/data.zarr"``.
        read_only : bool, default False
            Whether to refuse every write.
        allowed_exceptions : tuple of exception types, optional
            Exceptions of the filesystem that mean "no such key".
        close_timeout : float, default 5.0
            Seconds that leaving may take at most.

        Returns
        -------
        ManagedFSSpecStore
            A store with filesystems of its own.

        Raises
        ------
        ArgumentTypeError
            `fs` is no filesystem, or `path` no string.
        ArgumentError
            `fs` cannot be made a second time: it was made from an open file, or not in the usual way.
        """
        return cls._made(recipe_of_filesystem(fs, path), read_only, allowed_exceptions, close_timeout)

    @classmethod
    def _made(cls, recipe: Recipe, *arguments: Any) -> Self:
        store = cls.__new__(cls)
        store._make(recipe, *arguments)
        return store

    def _make(self, recipe: Recipe, read_only: object, allowed_exceptions: object, close_timeout: object) -> None:
        flag = checked_flag("read_only", read_only)
        exceptions = checked_exceptions(allowed_exceptions)
        owner = SessionOwner(recipe, close_timeout=checked_seconds("close_timeout", close_timeout), made_at=caller())
        self._become(owner, read_only=flag, allowed_exceptions=exceptions, is_derived=False)

    @classmethod
    def _of_pool(cls, lease: Lease, *, read_only: bool, allowed_exceptions: tuple[type[Exception], ...]) -> Self:
        store = cls.__new__(cls)
        store._become(lease, read_only=read_only, allowed_exceptions=allowed_exceptions, is_derived=False)
        return store

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        recipe = self._sessions.recipe
        return _unpickled, (
            type(self), recipe, self.read_only, self._allowed_exceptions, self.close_timeout, self.closed,
        )  # fmt: skip


ManagedStore = ManagedFSSpecStore


def _unpickled(
    cls: type[ManagedFSSpecStore],
    recipe: Recipe,
    read_only: bool,
    allowed_exceptions: tuple[type[Exception], ...],
    close_timeout: float,
    closed: bool,
) -> ManagedFSSpecStore:
    """Make an unpickled copy: a store of the pool of this process, so that a thousand tasks share one session."""
    from managed_store._leases import PROCESS_POOL, Lease  # here: most programs have no use for pools

    lease = Lease(PROCESS_POOL, recipe, close_timeout=close_timeout)
    store = cls._of_pool(lease, read_only=read_only, allowed_exceptions=allowed_exceptions)
    if closed:
        store.close()
    return store
