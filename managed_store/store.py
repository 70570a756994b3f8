"""The store: what a user makes, enters, leaves, compares and pickles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from managed_store import _process  # noqa: F401 - registers the hooks for exit and fork
from managed_store._arguments import caller, checked_exceptions, checked_flag, checked_seconds
from managed_store._building import Built
from managed_store._closable import ClosableStore
from managed_store._leases import PROCESS_POOL, Lease
from managed_store._lifecycle import Statistics
from managed_store._owners import SessionOwner
from managed_store._recipe import Recipe
from managed_store._twins import recipe_of_filesystem, recipe_of_mapper, recipe_of_upath

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem
    from fsspec.mapping import FSMap
    from fsspec.spec import AbstractFileSystem

__all__ = ["ManagedFSSpecStore", "ManagedStore"]

ALLOWED_EXCEPTIONS: tuple[type[Exception], ...] = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What a filesystem raises for a missing key: the same as zarr's FsspecStore takes it for."""


class ManagedFSSpecStore(ClosableStore):
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
        `url` is no string, `storage_options` no mapping, `read_only` no bool, `close_timeout` no number, or
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
    in flight may finish within `close_timeout`; when the body raised, only writes may. The rest is cut off, and raises
    ``StoreClosedError``. Closing is final.

    *Handles.* zarr derives a read-only handle for ``mode="r"``. Such a handle keeps the sessions alive while it lives,
    and closing it closes it alone; closing the store itself ends them all.

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
        upath : upath.UPath
            A URL with its storage options.
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
            `upath` is no ``UPath``.
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

    def _become(
        self,
        owner: SessionOwner | Lease,
        *,
        read_only: bool,
        allowed_exceptions: tuple[type[Exception], ...],
        is_derived: bool,
    ) -> None:
        super().__init__(read_only=read_only)
        self._allowed_exceptions = allowed_exceptions
        self._is_derived = is_derived
        self._is_closed = False
        self._lease = object()
        owner.handles.add(self._lease)
        self._owner = owner

    # What it is

    @property
    def url(self) -> str:
        """The URL as it was given, secrets included; `str` and `repr` of the store leave those out."""
        return self._sessions.recipe.url

    @property
    def path(self) -> str:
        """The root of the store as its filesystem spells it. Builds the filesystem if there is none yet."""
        built = self._open_built_at_once()
        return built.path if self._sessions.path is None else self._sessions.path

    @property
    def fs(self) -> AsyncFileSystem:
        """The filesystem of the running loop, or of zarr's loop where none runs; opened if need be.

        It belongs to the store, and to that loop alone: its coroutines must be awaited there. Opening it from within a
        coroutine blocks that loop while it is built; awaiting any read of the store first avoids that.
        """
        return self._open_built_at_once().filesystem

    @property
    def allowed_exceptions(self) -> tuple[type[Exception], ...]:
        """The exceptions of the filesystem that mean "no such key"."""
        return self._allowed_exceptions

    @property
    def close_timeout(self) -> float:
        """Seconds that leaving may take at most."""
        return self._sessions.close_timeout

    def statistics(self) -> Statistics:
        """Return what the store holds at this moment: a frozen snapshot, without secrets."""
        return self._sessions.statistics()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ManagedFSSpecStore)
            and self.read_only == other.read_only
            and self._allowed_exceptions == other._allowed_exceptions
            and self._sessions.recipe == other._sessions.recipe
        )

    __hash__ = None  # type: ignore[assignment]  # like zarr's own stores

    def __str__(self) -> str:
        return self._sessions.recipe.redacted_url

    def __repr__(self) -> str:
        statistics = self.statistics()
        state = "closed" if self._is_closed and not self._sessions.ended else statistics.state
        mode = " read-only" if self.read_only else ""
        return f"<ManagedStore {str(self)!r} {state}{mode} loops={statistics.loops} handles={statistics.handles}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        recipe = self._sessions.recipe
        return _unpickled, (
            type(self), recipe, self.read_only, self._allowed_exceptions, self.close_timeout, self.closed,
        )  # fmt: skip

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return a handle on the same store, with its sessions, that is read-only or not.

        The handle keeps the sessions alive while it lives. Closing it closes it alone.

        Parameters
        ----------
        read_only : bool, default False
            Whether the new handle refuses writes.

        Returns
        -------
        ManagedFSSpecStore
            The new handle.

        Raises
        ------
        StoreClosedError
            The store is closed.
        """
        self._refuse_if_closed()
        handle = type(self).__new__(type(self))
        handle._become(
            self._sessions, read_only=read_only, allowed_exceptions=self._allowed_exceptions, is_derived=True
        )
        return handle

    def _open_built_at_once(self) -> Built:
        self._refuse_if_closed()
        built = self._sessions.open_session_at_once().built
        assert built is not None  # the session is open
        return built


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
    lease = Lease(PROCESS_POOL, recipe, close_timeout=close_timeout)
    store = cls._of_pool(lease, read_only=read_only, allowed_exceptions=allowed_exceptions)
    if closed:
        store.close()
    return store
