"""One closing of a store: every session is closed on its own loop, and all of them within one budget of time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

from managed_store._lifecycle import Drain, State
from managed_store._sessions import Session
from managed_store.errors import StoreCloseError

__all__ = ["Closing", "running_loop"]

P = ParamSpec("P")

# What it takes at least, in seconds, to have other loops cut something off, should the time be less.
_TO_CUT_OFF = 0.1

# The part of the time that each session gets; the rest is for waking up those who wait for it.
_SHARE_OF_SESSIONS = 0.9

# How long to wait, in seconds, before looking again whether a loop that was asked to close a session still runs.
_LOOK_AGAIN = 0.05


class Closing:
    """Closes sessions, from whatever thread or loop.

    Parameters
    ----------
    sessions : mapping of asyncio.AbstractEventLoop to Session
        The sessions; each leaves the mapping when it has ended.
    drain : Drain
        Which requests in flight may finish.
    timeout : float
        Seconds that it may take in all.
    redacted_url : str
        What is closed, for a message.
    """

    def __init__(
        self,
        sessions: Mapping[asyncio.AbstractEventLoop, Session],
        drain: Drain,
        *,
        timeout: float,
        redacted_url: str,
    ) -> None:
        self._sessions = sessions
        self._drain = drain
        self._timeout = timeout
        self._redacted_url = redacted_url
        self._waiting: dict[Any, Session] = {}  # the future of what a loop does → its session
        self._as_awaited: Callable[[concurrent.futures.Future[None]], Any] = lambda future: future
        self._failures: list[Exception] = []

    def run(self) -> None:
        """Close, and wait for that; but never for the loop that is running here.

        Ctrl-C ends the waiting, and cuts off what is still open.
        """
        deadline = time.monotonic() + max(self._timeout, _TO_CUT_OFF)
        try:
            running = running_loop()
            if running is not None and (own := self._sessions.get(running)) is not None:
                own.close_at_once()
            self._ask_other_loops(running)
            while self._waiting and (left := deadline - time.monotonic()) > 0:
                concurrent.futures.wait(self._waiting, timeout=min(left, _LOOK_AGAIN), return_when="FIRST_COMPLETED")
                self._collect()
        except BaseException:
            self._cut_off()
            raise
        self._raise_failures()

    async def run_async(self) -> None:
        """Close, and wait for that. A cancellation is raised at its end, and lets only writes finish."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(self._timeout, _TO_CUT_OFF)
        self._as_awaited = asyncio.wrap_future
        self._ask_other_loops(loop)
        if (own := self._sessions.get(loop)) is not None:
            self._waiting[loop.create_task(own.close(self._drain, self._timeout * _SHARE_OF_SESSIONS))] = own
        cancellation: asyncio.CancelledError | None = None
        while self._waiting:
            if loop.time() > deadline:
                if own is None or own not in self._waiting.values():
                    break
                own.cut_off_at_once()  # this loop was too busy to close it in time
                own, deadline = None, loop.time() + _TO_CUT_OFF
            try:
                left = max(0.0, deadline - loop.time())
                await asyncio.wait(self._waiting, timeout=min(left, _LOOK_AGAIN), return_when="FIRST_COMPLETED")
            except asyncio.CancelledError as error:
                cancellation = error
                for session in self._waiting.values():
                    _on_its_loop(session, session.close_soon, Drain.WRITES, self._timeout)
            self._collect()
        if cancellation is not None:
            raise cancellation
        self._raise_failures()

    def _ask_other_loops(self, running: asyncio.AbstractEventLoop | None) -> None:
        for loop, session in tuple(self._sessions.items()):
            if loop is not running:
                self._ask(session)

    def _ask(self, session: Session) -> None:
        """Have another loop close its session, or cut it off if that loop does not run."""
        if not _is_paused(session.loop):
            closing = session.close(self._drain, self._timeout * _SHARE_OF_SESSIONS)
            try:
                future = asyncio.run_coroutine_threadsafe(closing, session.loop)
            except RuntimeError:  # the loop was closed a moment ago
                closing.close()
            else:
                self._waiting[self._as_awaited(future)] = session
                return
        session.cut_off()

    def _collect(self) -> None:
        """Take out what has ended, and ask again for the sessions whose loop ended before it came to close them."""
        for future, session in tuple(self._waiting.items()):
            if future.done():
                error = None if future.cancelled() else future.exception()
                if isinstance(error, Exception):
                    self._failures.append(error)
            elif not session.left_to_its_loop and not _is_paused(session.loop):
                continue
            del self._waiting[future]
            if session.state is not State.CLOSED and not session.left_to_its_loop:
                self._ask(session)

    def _cut_off(self) -> None:
        """Cut off every session, and give the loops the moment that it takes."""
        for session in tuple(self._sessions.values()):
            if _is_paused(session.loop):
                session.cut_off()
            else:
                _on_its_loop(session, session.close_at_once)
        deadline = time.monotonic() + _TO_CUT_OFF
        concurrent.futures.wait(self._waiting, timeout=_TO_CUT_OFF)
        while any(not session.left_to_its_loop for session in tuple(self._sessions.values())):
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)

    def _raise_failures(self) -> None:
        """Raise what went wrong, all of it together, and name what is still open."""
        if self._waiting:
            loops = ", ".join(sorted({repr(session.loop) for session in self._waiting.values()}))
            left_open = ["a session on an event loop that did not answer"] * len(self._waiting)
            self._failures.append(
                StoreCloseError(
                    f"Closing {self._redacted_url!r} took more than close_timeout={self._timeout} seconds. "
                    f"Still open: a session on {loops}. The loop closes it when it answers again.",
                    left_open,
                )
            )
        if len(self._failures) == 1:
            raise self._failures[0]
        if self._failures:
            left_open = [name for error in self._failures for name in getattr(error, "left_open", ())]
            raise StoreCloseError("; ".join(map(str, self._failures)), left_open) from ExceptionGroup(
                "closing failed on several loops", self._failures
            )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that is running on this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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
