"""A handle on the sessions of a store: what it tells of itself, and the handles that are derived from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from managed_store._building import Built
from managed_store._closable import ClosableStore
from managed_store._owners import SessionOwner

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem

    from managed_store._leases import Lease
    from managed_store._statistics import Statistics

__all__ = ["Handle"]


class Handle(ClosableStore):
    """One of the stores that share the sessions of an owner. Not for use by itself: `ManagedFSSpecStore` makes it."""

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
        self._token = object()
        owner.handles.add(self._token)
        self._sessions = owner

    @property
    def url(self) -> str:
        """The URL as it was given, secrets included; `str` and `repr` of the store leave those out."""
        return self._sessions.recipe.url

    @property
    def path(self) -> str:
        """The root of the store as its filesystem spells it. Builds the filesystem if need be, as `fs` does."""
        built = self._built_at_once()
        return built.path if self._sessions.path is None else self._sessions.path

    @property
    def fs(self) -> AsyncFileSystem:
        """The filesystem of the running loop, or of zarr's loop where none runs; built if need be.

        It belongs to the store, and to that loop alone: its coroutines must be awaited there. Asking for it from within
        a coroutine blocks that loop while it is built; awaiting any read of the store first avoids that.
        """
        return self._built_at_once().filesystem

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
            isinstance(other, Handle)
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

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return a handle on the same store, with its sessions, that is read-only or not.

        The handle keeps the sessions alive while it lives. Closing it closes it alone, unless it is the last.

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

    def _built_at_once(self) -> Built:
        self._refuse_if_closed()
        return self._sessions.built_at_once()
