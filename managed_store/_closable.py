"""Opening and closing a handle, and what is left to the garbage collector."""

from __future__ import annotations

from typing import Self

from managed_store._guarded import GuardedStore
from managed_store._leaving import Closable
from managed_store._lifecycle import Drain

__all__ = ["ClosableStore"]


class ClosableStore(Closable, GuardedStore):
    """A handle on the sessions of an owner. Not for use by itself: `ManagedFSSpecStore` makes it."""

    _is_derived: bool
    _token: object

    async def _open(self) -> None:
        self._refuse_if_closed()
        await super()._open()

    async def _ensure_open(self) -> None:
        self._refuse_if_closed()
        self._is_open = True

    def close(self) -> None:
        """Close the store, and wait until each session has been closed on its own loop.

        Idempotent and safe from several threads at once. On a handle that zarr derived (``with_read_only``), closes
        that handle alone, unless it is the last. Called on an event loop that owns a session of the store, it cannot
        wait for that loop: it cuts the connections off at once and leaves the rest to a task; `aclose` is the way to
        wait there.

        Raises
        ------
        StoreCloseError
            Something was still open after `close_timeout` seconds. The store is closed all the same.
        """
        self._close(Drain.ALL)

    async def aclose(self) -> None:
        """Close the store as `close` does, without blocking the running loop.

        A cancellation does not interrupt closing; it is raised when closing has ended.

        Raises
        ------
        StoreCloseError
            Something was still open after `close_timeout` seconds. The store is closed all the same.
        """
        await self._aclose(Drain.ALL)

    def _close(self, drain: Drain) -> None:
        if self._end_handle():
            self._sessions.close(drain)

    async def _aclose(self, drain: Drain) -> None:
        if self._end_handle():
            await self._sessions.aclose(drain)

    def _end_handle(self) -> bool:
        """End this handle; return whether that ends the sessions: the store itself does, or the last of its handles."""
        self._is_closed = True
        self._is_open = False
        self._sessions.handles.discard(self._token)
        return not self._is_derived or not self._sessions.handles

    def __enter__(self) -> Self:
        """Return the store itself."""
        self._refuse_if_closed()
        self._is_open = True
        return self

    async def __aenter__(self) -> Self:
        """Return the store itself."""
        return self.__enter__()

    def __del__(self) -> None:
        sessions = getattr(self, "_sessions", None)  # there is none if the constructor has failed
        if sessions is not None:  # a closed one too: Ctrl-C may have struck before its sessions were closed
            sessions.release(self._token)
