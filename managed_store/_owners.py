"""The owner of a store's sessions: one session for each event loop, shared by every handle of the store.

Owners need no lock. Each session is changed by its own loop's thread alone; what threads share here are a dict and a
set, whose single operations are atomic. The one race, a session that is made while another thread closes the owner, is
settled by order: the maker enters the session first and looks at the state afterwards, the closer sets the state first
and looks for sessions afterwards, so that at least one of them sees the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from managed_store._awaiting import finished, running_loop
from managed_store._building import Built
from managed_store._closing import Closing, close_in_background
from managed_store._lifecycle import Drain, State
from managed_store._never_closed import NeverClosed
from managed_store._recipe import Recipe
from managed_store._sessions import Session
from managed_store._zarr_loop import run_on_zarr_loop
from managed_store.errors import StoreClosedError

if TYPE_CHECKING:
    from managed_store._statistics import Statistics

__all__ = ["SessionOwner", "owners_with_sessions"]

# Owners with an open session, held strongly: the async generators by which sessions end with their loops are
# reliably closed only while something refers to them.
owners_with_sessions: set[SessionOwner] = set()


class SessionOwner:
    """Owns the sessions of one recipe, on every loop.

    Parameters
    ----------
    recipe : Recipe
        How to build a filesystem.
    close_timeout : float
        Seconds that closing may take in all.
    made_at : str or None
        File and line where the user made the store, for the warning that it was forgotten; None for a store that
        nobody made by hand (an unpickled one), which is not warned of.
    """

    def __init__(self, recipe: Recipe, *, close_timeout: float, made_at: str | None) -> None:
        self.recipe = recipe
        self.close_timeout = close_timeout
        self.ended = False
        self.handles: set[object] = set()
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self.session_of = self._sessions.get  # of a loop, if it has one: no method, for it is asked for every chunk
        self._never_closed = NeverClosed(made_at)
        self._opened = self._closed = self._forced = 0
        self._caches_listings, self._caches_files = recipe.wants_listings_cache, recipe.caches_files
        self.writes = 0

    path = None
    """The root of the store, where the recipe does not name it."""

    @property
    def state(self) -> State:
        """How far the owner is in its life. Derived, so that no thread can overwrite what a closing one has set."""
        if self.ended:
            return State.CLOSING if self._sessions else State.CLOSED
        return State.OPEN if self._sessions or self._opened else State.NEW

    # Sessions

    def session(self, loop: asyncio.AbstractEventLoop) -> Session:
        """The session of `loop`, the running one; made if there is none, not yet opened.

        Raises
        ------
        StoreClosedError
            The store is closed, or another thread is closing it.
        """
        session = self._sessions.get(loop)
        if session is not None and session.state is not State.CLOSED:
            return session
        _cut_off_closed_loops()
        session = Session(self.recipe, loop, close_timeout=self.close_timeout, on_end=self._forget)
        self._sessions[loop] = session
        owners_with_sessions.add(self)
        if self.ended:
            session.cut_off()
            raise self.recipe.closed_error()
        return session

    async def open_session(self) -> Session:
        """The open session of the running loop."""
        loop = asyncio.get_running_loop()
        while True:
            session = self.session(loop)
            try:
                return await session.opened()
            except StoreClosedError:
                if self.ended:
                    raise
            if session.state is not State.CLOSED:
                await finished(session.close_soon(Drain.ALL, self.close_timeout))  # it was idle; the next one is not

    def built_at_once(self) -> Built:
        """What the session of the running loop has built, or of zarr's loop where none runs; from synchronous code."""
        loop = running_loop()
        if loop is None:
            built = run_on_zarr_loop(self.open_session()).built
            assert built is not None  # the session was open
            return built
        session = self.session(loop)
        if session.state is State.CLOSING and not self.ended:  # it was idle; its end cannot be awaited here
            session.cut_off()
            session = self.session(loop)
        return session.built_at_once()

    def sessions(self) -> list[Session]:
        """The sessions of all loops."""
        return list(self._sessions.values())

    def wrote(self, keys: Sequence[str], path: str | None = None) -> None:
        """Make a write or delete of `keys` visible to every session at once, if the user has asked for caches."""
        self.writes += 1
        for session in tuple(self._sessions.values()) if self._caches_listings or self._caches_files else ():
            if session.built is not None:
                session.built.forget_listings()
                session.built.forget_files(keys, path)

    def listed(self, *, writes_before: int) -> None:
        """Drop what a listing on this loop has put into a cache, if something was written while it was under way."""
        if self._caches_listings and self.writes != writes_before and (loop := running_loop()) is not None:
            session = self.session_of(loop)
            if session is not None and session.built is not None:
                session.built.forget_listings()

    def _forget(self, session: Session) -> None:
        self._opened += session.built is not None
        self._closed += session.built is not None and not session.forced
        self._forced += session.forced
        if self._sessions.get(session.loop) is session:
            del self._sessions[session.loop]
        if not self._sessions:
            owners_with_sessions.discard(self)

    def statistics(self) -> Statistics:
        """What is held now."""
        from managed_store._statistics import Statistics  # here: many programs never ask

        sessions = tuple(self._sessions.values())
        return Statistics(
            state=self.state.name.lower(),
            handles=len(self.handles),
            loops=len(sessions),
            requests_in_flight=sum(len(session.requests) for session in sessions),
            opened=self._opened + sum(session.state is not State.NEW for session in sessions),
            closed=self._closed,
            forced=self._forced,
        )

    # Closing

    def close(self, drain: Drain) -> None:
        """Close every session, and wait for that; but never for the loop that is running.

        Raises
        ------
        StoreCloseError
            Something is still open.
        """
        self._closing(drain).run()

    async def aclose(self, drain: Drain) -> None:
        """Close every session, and wait for that without blocking the running loop.

        Raises
        ------
        StoreCloseError
            Something is still open.
        """
        await self._closing(drain).run_async()

    def end(self) -> list[Session]:
        """Refuse new sessions; return those that there are."""
        self.ended = True
        return self.sessions()

    def _closing(self, drain: Drain) -> Closing:
        return Closing(self.end(), drain, timeout=self.close_timeout, what=lambda: repr(self.recipe.redacted_url))

    def forget_sessions(self) -> list[Session]:
        """Give up every session without touching it: in a child process, where they are the parent's."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        owners_with_sessions.discard(self)
        return sessions

    # Forgetting

    def release(self, handle: object) -> None:
        """A handle is gone unclosed. Runs on any thread, inside the garbage collector: it waits for nothing."""
        self.handles.discard(handle)
        if self.handles or not self._sessions:
            return
        was_ended = self.ended  # Ctrl-C may have struck before a closing came to its sessions
        close_in_background(self.end(), self.close_timeout)
        if not was_ended:
            self.warn()

    def warn(self) -> None:
        """Warn, once, that the store was never closed."""
        self._never_closed.warn(f"ManagedStore({self.recipe.redacted_url!r})", self)


def _cut_off_closed_loops() -> None:
    """A loop that was closed without shutting down its async generators has left the sessions of its stores behind."""
    for owner in tuple(owners_with_sessions):
        for loop, session in tuple(owner._sessions.items()):
            if loop.is_closed():
                session.cut_off()
