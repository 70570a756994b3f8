"""The owner of a store's sessions: one session for each event loop, shared by every handle of the store.

Owners need no lock. Each session is changed by its own loop's thread alone; what threads share here are a dict and a
set, whose single operations are atomic. The one race, a session that is made while another thread closes the owner, is
settled by order: the maker enters the session first and looks at the state afterwards, the closer sets the state first
and looks for sessions afterwards, so that at least one of them sees the other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

from managed_store._lifecycle import Drain, State, Statistics
from managed_store._recipe import Recipe
from managed_store._sessions import Session, closed_error
from managed_store._zarr_loop import run_on_zarr_loop
from managed_store.errors import StoreCloseError

__all__ = ["SessionOwner", "owners_with_sessions"]

P = ParamSpec("P")

# What it takes at least, in seconds, to have other loops cut something off, should `close_timeout` be less.
_TO_CUT_OFF = 0.1

# The part of the time to close that each session gets; the rest is for waking up those who wait for it.
_SHARE_OF_SESSIONS = 0.9

# How long to wait, in seconds, before looking again whether a loop that was asked to close a session still runs.
_LOOK_AGAIN = 0.05

# What an owner waits for, from any thread: the futures of coroutines that other loops run.
_Waiting = dict[concurrent.futures.Future[None], Session]

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
        self._warn_of = [] if made_at is None else [made_at]
        self._opened = self._closed = self._forced = 0
        self._caches_listings, self._caches_files = recipe.wants_listings_cache, recipe.caches_files
        self.writes = 0

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
            raise closed_error(self.recipe)
        return session

    async def open_session(self) -> Session:
        """The open session of the running loop."""
        return await self.session(asyncio.get_running_loop()).opened()

    def open_session_at_once(self) -> Session:
        """The open session of the running loop, or of zarr's loop where none runs; from synchronous code."""
        loop = _running_loop()
        return run_on_zarr_loop(self.open_session()) if loop is None else self.session(loop).open_at_once()

    def wrote(self, keys: Sequence[str]) -> None:
        """Make a write or delete of `keys` visible to every session at once, if the user has asked for caches."""
        self.writes += 1
        for session in tuple(self._sessions.values()) if self._caches_listings or self._caches_files else ():
            if session.built is not None:
                session.built.forget_listings()
                session.built.forget_files(keys)

    def listed(self, session: Session, *, writes_before: int) -> None:
        """Drop what a listing has put into a cache, if something was written while it was under way."""
        if self._caches_listings and self.writes != writes_before and session.built is not None:
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
        """Close every session, each on its own loop, and wait for that; but never for the loop that is running.

        Ctrl-C ends the waiting, and cuts off what is still open.
        """
        deadline = time.monotonic() + max(self.close_timeout, _TO_CUT_OFF)
        waiting: _Waiting = {}
        failures: list[Exception] = []
        try:
            self.ended = True
            running = _running_loop()
            if running is not None and (own := self._sessions.get(running)) is not None:
                own.close_at_once()
            self._begin_closing(drain, waiting)
            while waiting and (left := deadline - time.monotonic()) > 0:
                concurrent.futures.wait(waiting, timeout=min(left, _LOOK_AGAIN), return_when="FIRST_COMPLETED")
                for session in self._collect(waiting, failures):
                    self._ask_to_close(session, drain, waiting)
        except BaseException:
            self._cut_off(waiting)
            raise
        self._finish_closing(waiting, failures)

    def _cut_off(self, waiting: _Waiting) -> None:
        """Cut off every session, and give the loops the moment that it takes."""
        for session in tuple(self._sessions.values()):
            if _is_paused(session.loop):
                session.cut_off()
            else:
                _on_its_loop(session, session.close_at_once)
        deadline = time.monotonic() + _TO_CUT_OFF
        concurrent.futures.wait(waiting, timeout=_TO_CUT_OFF)
        while any(not session.left_to_its_loop for session in tuple(self._sessions.values())):
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)

    async def aclose(self, drain: Drain) -> None:
        """Close every session, each on its own loop, and wait for that."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(self.close_timeout, _TO_CUT_OFF)
        others: _Waiting = {}
        self._begin_closing(drain, others)
        waiting = {asyncio.wrap_future(future): session for future, session in others.items()}
        failures: list[Exception] = []
        if (own := self._sessions.get(loop)) is not None:
            waiting[loop.create_task(own.close(drain, self.close_timeout * _SHARE_OF_SESSIONS))] = own
        cancellation: asyncio.CancelledError | None = None
        while waiting:
            if loop.time() > deadline:
                if own is None or own not in waiting.values():
                    break
                own.cut_off_at_once()  # this loop was too busy to close it in time
                own, deadline = None, loop.time() + _TO_CUT_OFF
            try:
                left = max(0.0, deadline - loop.time())
                await asyncio.wait(waiting, timeout=min(left, _LOOK_AGAIN), return_when="FIRST_COMPLETED")
            except asyncio.CancelledError as error:  # it goes on after the closing, which is in a hurry now
                cancellation = error
                for session in waiting.values():
                    _on_its_loop(session, session.close_soon, Drain.WRITES, self.close_timeout)
            asked: _Waiting = {}
            for session in self._collect(waiting, failures):
                self._ask_to_close(session, drain, asked)
            waiting |= {asyncio.wrap_future(future): session for future, session in asked.items()}
        self._finish_closing(waiting, failures, cancellation)

    def _begin_closing(self, drain: Drain, waiting: _Waiting) -> None:
        """Ask every other loop to close its session, and cut off the sessions of loops that cannot be asked."""
        self.ended = True
        running = _running_loop()
        for loop, session in tuple(self._sessions.items()):
            if loop is not running:
                self._ask_to_close(session, drain, waiting)

    def _ask_to_close(self, session: Session, drain: Drain, waiting: _Waiting) -> None:
        """Have another loop close its session, or cut it off if that loop does not run."""
        if not _is_paused(session.loop):
            closing = session.close(drain, self.close_timeout * _SHARE_OF_SESSIONS)
            try:
                future = asyncio.run_coroutine_threadsafe(closing, session.loop)
            except RuntimeError:  # the loop was closed a moment ago
                closing.close()
            else:
                waiting[future] = session
                return
        session.cut_off()

    def _collect(self, waiting: dict[Any, Session], failures: list[Exception]) -> list[Session]:
        """Take out what has ended, and return the sessions whose loop ended before it came to close them."""
        unanswered: list[Session] = []
        for future, session in tuple(waiting.items()):
            if future.done():
                error = None if future.cancelled() else future.exception()
                if isinstance(error, Exception):
                    failures.append(error)
            elif not session.left_to_its_loop and not _is_paused(session.loop):
                continue
            del waiting[future]
            if session.state is not State.CLOSED and not session.left_to_its_loop:
                unanswered.append(session)
        return unanswered

    def _finish_closing(
        self,
        waiting: dict[Any, Session],
        failures: list[Exception],
        cancellation: asyncio.CancelledError | None = None,
    ) -> None:
        if cancellation is not None:
            raise cancellation
        if waiting:
            loops = ", ".join(sorted({repr(session.loop) for session in waiting.values()}))
            left_open = ["a session on an event loop that did not answer"] * len(waiting)
            failures.append(
                StoreCloseError(
                    f"Closing {self.recipe.redacted_url!r} took more than close_timeout={self.close_timeout} seconds. "
                    f"Still open: a session on {loops}. The loop closes it when it answers again.",
                    left_open,
                )
            )
        if len(failures) == 1:
            raise failures[0]
        if failures:
            left_open = [name for error in failures for name in getattr(error, "left_open", ())]
            raise StoreCloseError("; ".join(map(str, failures)), left_open) from ExceptionGroup(
                "closing failed on several loops", failures
            )

    def forget_sessions(self) -> list[Session]:
        """Give up every session without touching it: in a child process, where they are the parent's."""
        sessions = list(self._sessions.values())
        self._sessions = {}
        owners_with_sessions.discard(self)
        return sessions

    # Forgetting

    def release(self, handle: object) -> None:
        """A handle is gone unclosed. Runs on any thread, inside the garbage collector: it waits for nothing."""
        self.handles.discard(handle)
        if self.handles or not self._sessions or self.ended:
            return
        self.ended = True
        for loop, session in tuple(self._sessions.items()):
            try:
                loop.call_soon_threadsafe(session.close_soon, Drain.ALL, self.close_timeout)
            except RuntimeError:
                session.cut_off()
            else:
                if not loop.is_running():
                    session.cut_off()
        self.warn()

    def warn(self) -> None:
        """Warn, once, that the store was never closed."""
        try:
            made_at = self._warn_of.pop()
        except IndexError:
            return
        warnings.warn_explicit(
            f"ManagedStore({self.recipe.redacted_url!r}) was never closed; it was made at {made_at}. Use it in a "
            f"`with` or `async with` block, or call close().",
            category=ResourceWarning,
            filename=made_at.rpartition(":")[0],
            lineno=int(made_at.rpartition(":")[2]),
            source=self,
        )


def _cut_off_closed_loops() -> None:
    """A loop that was closed without shutting down its async generators has left the sessions of its stores behind."""
    for owner in tuple(owners_with_sessions):
        for loop, session in tuple(owner._sessions.items()):
            if loop.is_closed():
                session.cut_off()


def _on_its_loop(session: Session, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Take a step with a session on the thread of its loop, without waiting for it."""
    try:
        session.loop.call_soon_threadsafe(functools.partial(step, *args, **kwargs))
    except RuntimeError:  # the loop was closed a moment ago
        session.cut_off()


def _is_paused(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop of another thread does not run, and is not merely between the steps in which `run` ends it."""
    for _ in range(3):
        if loop.is_running():
            return False
        if loop.is_closed():
            return True
        time.sleep(0.0005)
    return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
