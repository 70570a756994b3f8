"""The pool: one owner for many stores."""

from __future__ import annotations

from typing import Any, NoReturn, Self

from managed_store._arguments import caller, checked_count, checked_exceptions, checked_flag, checked_seconds
from managed_store._leases import Lease
from managed_store._leaving import Closable
from managed_store._lifecycle import Drain
from managed_store._options import checked_options, copied
from managed_store._pooling import Pool, PoolLimits
from managed_store._recipe import Recipe
from managed_store._statistics import PoolStatistics
from managed_store.store import ALLOWED_EXCEPTIONS, ManagedFSSpecStore

__all__ = ["StorePool"]


class StorePool(Closable):
    """Owns the sessions of many stores: stores with the same options share one filesystem on each event loop.

    Two stores share if their filesystems could be one and the same: same kind, equal option values, whatever their
    paths. What an archive or a file of references holds is shared by stores with the same URL. Leaving the pool closes
    every filesystem, the most recently opened first.

    Parameters
    ----------
    storage_options : mapping, optional
        Options for every store of the pool; what `store` is given is laid over them.
    close_timeout : float, default 5.0
        Seconds that leaving may take at most, for all filesystems together.
    max_idle : float, default 60.0
        Seconds without a request after which a filesystem is closed; ``math.inf`` for never. It is opened again when
        one of its stores is used.
    max_filesystems : int, default 100
        How many filesystems to keep open, counted over all event loops. Beyond that the least recently used one is
        closed; one with a request in flight never is, so that there can be more for a while.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        An argument has a value that cannot work.

    Warns
    -----
    ResourceWarning
        When the pool and the last of its stores are dropped while something is open. It is closed in the background.

    Notes
    -----
    *Loops and threads.* As for a store: each event loop that uses a store of the pool has filesystems of its own, and
    all may be mixed. `store` may be called from any thread, inside coroutines too: it opens nothing.

    *Idle filesystems* are closed by a timer of their own loop. What `ManagedStore.fs` gives is not kept open by using
    it directly: only the requests of stores count.

    *Pickling.* A pool cannot be pickled; its stores can, and come to life in the pool of the process that unpickles
    them.

    Examples
    --------
    >>> import zarr
    >>> from managed_store import StorePool
    >>> with StorePool() as pool:
    ...     for name in ("a", "b"):
    ...         array = zarr.create_array(pool.store(f"memory://pool/{name}.zarr"), shape=(3,), dtype="i4")
    ...     pool.statistics().filesystems
    1
    """

    def __init__(
        self,
        *,
        storage_options: dict[str, Any] | None = None,
        close_timeout: float = 5.0,
        max_idle: float = 60.0,
        max_filesystems: int = 100,
    ) -> None:
        self._options = copied(checked_options(storage_options))
        limits = PoolLimits(
            close_timeout=checked_seconds("close_timeout", close_timeout),
            max_idle=checked_seconds("max_idle", max_idle, infinite=True, zero=False),
            max_filesystems=checked_count("max_filesystems", max_filesystems),
        )
        self._pool = Pool(limits, made_at=caller())

    def store(
        self,
        url: str,
        *,
        storage_options: dict[str, Any] | None = None,
        read_only: bool = False,
        allowed_exceptions: tuple[type[Exception], ...] = ALLOWED_EXCEPTIONS,
    ) -> ManagedFSSpecStore:
        """Make a store that borrows its sessions from the pool. Opens nothing.

        Closing it closes that store alone; the pool keeps the filesystem for others.

        Parameters
        ----------
        url : str
            As for ``ManagedStore``.
        storage_options : mapping, optional
            Options of the filesystem, laid over those of the pool.
        read_only : bool, default False
            Whether to refuse every write.
        allowed_exceptions : tuple of exception types, optional
            Exceptions of the filesystem that mean "no such key".

        Returns
        -------
        ManagedFSSpecStore
            The store.

        Raises
        ------
        StoreClosedError
            The pool is closed.
        ArgumentError, ArgumentTypeError, MissingPackageError
            As for ``ManagedStore``.
        """
        if self._pool.ended:
            raise self._pool.closed_error()
        recipe = Recipe.checked(url, storage_options, beneath=self._options)
        checked_flag("read_only", read_only)
        exceptions = checked_exceptions(allowed_exceptions)
        lease = Lease(self._pool, recipe, close_timeout=self._pool.limits.close_timeout)
        return ManagedFSSpecStore._of_pool(lease, read_only=read_only, allowed_exceptions=exceptions)

    @property
    def closed(self) -> bool:
        """Whether the pool is closed or closing, and its stores with it."""
        return self._pool.ended

    def statistics(self) -> PoolStatistics:
        """Return what the pool holds at this moment: a frozen snapshot, without secrets."""
        return self._pool.statistics()

    def close(self) -> None:
        """Close the pool and all its stores, and wait until each filesystem has been closed on its own loop.

        Idempotent and safe from several threads at once. Called on an event loop that owns a filesystem of the pool,
        it cannot wait for that loop: it cuts the connections off at once and leaves the rest to a task; `aclose` is
        the way to wait there.

        Raises
        ------
        StoreCloseError
            Something was still open after `close_timeout` seconds. The pool is closed all the same.
        """
        self._close(Drain.ALL)

    async def aclose(self) -> None:
        """Close the pool as `close` does, without blocking the running loop.

        A cancellation does not interrupt closing; it is raised when closing has ended.

        Raises
        ------
        StoreCloseError
            Something was still open after `close_timeout` seconds. The pool is closed all the same.
        """
        await self._aclose(Drain.ALL)

    def _close(self, drain: Drain) -> None:
        self._pool.close(drain)

    async def _aclose(self, drain: Drain) -> None:
        await self._pool.aclose(drain)

    def __enter__(self) -> Self:
        """Return the pool itself."""
        if self._pool.ended:
            raise self._pool.closed_error()
        return self

    async def __aenter__(self) -> Self:
        """Return the pool itself."""
        return self.__enter__()

    def __repr__(self) -> str:
        statistics = self.statistics()
        return (
            f"<StorePool {statistics.state} stores={statistics.stores} filesystems={statistics.filesystems} "
            f"loops={statistics.loops}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("A StorePool owns connections of this process and cannot be pickled. Its stores can.")

    def __del__(self) -> None:
        if hasattr(self, "_pool"):  # the constructor may have failed
            self._pool.let_go()
