"""One closing of a store: every session is closed on its own loop, and all of them within one budget of time."""

from __future__ import annotations

import asyncio
import functools
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec

from managed_store._awaiting import running_loop
from managed_store._lifecycle import Drain, State
from managed_store._sessions import Session
from managed_store.errors import StoreCloseError

__all__ = ["Closing", "close_in_background", "on_its_loop"]

P = ParamSpec("P")

# What it takes at least, in seconds, to have other loops cut something off, should the time be less.
_TO_CUT_OFF = 0.1

# Of the time, this part is kept for waking up those who wait for a session, but never more than these seconds.
_KEPT_FOR_WAKING, _MOST_FOR_WAKING = 0.1, 0.25

# How long to wait, in seconds, before looking again whether a loop that was asked to close a session still runs.
_LOOK_AGAIN = 0.05


class Closing:
    """Closes sessions, from whatever thread or loop.

    Parameters
    ----------
    sessions : sequence of Session
        The sessions, of any loops; they begin to close in this order.
    drain : Drain
        Which requests in flight may finish.
    timeout : float
        Seconds that it may take in all.
    what : callable
        Names what is closed, for a message; without secrets.
    """

    def __init__(self, sessions: Sequence[Session], drain: Drain, *, timeout: float, what: Callable[[], str]) -> None:
        self._sessions = sessions
        self._drain = drain
        self._timeout = timeout
        self._what = what
        self._waiting: set[Session] = set()
        # Not futures: Ctrl-C can strike between taking a future's lock and remembering to give it back, and the loop
        # that then answers would wait for that lock for ever.
        self._answers: queue.SimpleQueue[tuple[Session, BaseException | None]] = queue.SimpleQueue()
        self._wake: Callable[[asyncio.AbstractEventLoop], object] = lambda answering: None
        self._failures: list[Exception] = []

    def run(self) -> None:
        """Close, and wait for that; but never for the loop that is running here.

        Ctrl-C ends the waiting, and cuts off what is still open.
        """
        deadline = time.monotonic() + max(self._timeout, _TO_CUT_OFF)
        running = None
        try:
            running = running_loop()
            for own in self._of_loop(running):
                own.close_at_once()
            self._ask_other_loops(running)
            while self._waiting and (left := deadline - time.monotonic()) > 0:
                try:
                    self._note(*self._answers.get(timeout=min(left, _LOOK_AGAIN)))
                except queue.Empty:  # no `suppress`: Ctrl-C strikes when a function is called, with this as its context
                    pass
                self._collect()
        except BaseException:
            self._cut_off(running)
            raise
        self._raise_failures()

    async def run_async(self) -> None:
        """Close, and wait for that. A cancellation is raised at its end, and lets only writes finish."""
        loop = running_loop()
        if loop is None:  # a coroutine that was left inside its block is collected after its loop has ended
            self.run()
            return
        deadline = loop.time() + max(self._timeout, _TO_CUT_OFF)
        answered = asyncio.Event()
        self._wake = lambda answering: answered.set() if answering is loop else _call_soon(loop, answered.set)
        self._ask_other_loops(loop)
        own = self._of_loop(loop)
        self._waiting.update(own)
        for session in own:
            self._begin(session)
        cancellation: asyncio.CancelledError | None = None
        while self._waiting:
            if loop.time() > deadline:
                if self._waiting.isdisjoint(own):
                    break
                for session in self._waiting.intersection(own):
                    session.cut_off_at_once()  # this loop was too busy to close it in time
                own, deadline = [], loop.time() + _TO_CUT_OFF
            look_again = loop.call_later(max(0.0, min(deadline - loop.time(), _LOOK_AGAIN)), answered.set)
            try:
                await answered.wait()
            except asyncio.CancelledError as error:
                cancellation = error
                for session in self._waiting:
                    on_its_loop(session, session.close_soon, Drain.WRITES, self._timeout)
            look_again.cancel()
            answered.clear()
            self._collect()
        if cancellation is not None:
            raise cancellation
        self._raise_failures()

    def _of_loop(self, loop: asyncio.AbstractEventLoop | None) -> list[Session]:
        return [session for session in self._sessions if session.loop is loop]

    def _ask_other_loops(self, running: asyncio.AbstractEventLoop | None) -> None:
        for session in self._sessions:
            if session.loop is not running:
                self._ask(session)

    def _ask(self, session: Session) -> None:
        """Have another loop close its session, or cut it off if that loop does not run."""
        if not _is_paused(session.loop):
            self._waiting.add(session)
            if _call_soon(session.loop, self._begin, session):
                return
        self._waiting.discard(session)
        if (error := session.cut_off()) is not None:
            self._failures.append(error)

    def _begin(self, session: Session) -> None:
        """Begin to close a session, on its loop's thread."""
        if session.state is State.CLOSED:
            self._answer(session)
        else:
            kept = min(self._timeout * _KEPT_FOR_WAKING, _MOST_FOR_WAKING)
            closing = session.close_soon(self._drain, self._timeout - kept)
            closing.add_done_callback(functools.partial(self._answer, session))

    def _answer(self, session: Session, closing: asyncio.Task[None] | None = None) -> None:
        """Say that a closing has ended, on its loop's thread."""
        self._answers.put((session, None if closing is None or closing.cancelled() else closing.exception()))
        self._wake(session.loop)

    def _collect(self) -> None:
        """Note the answers, and ask again for the sessions whose loop ended before it came to close them."""
        while not self._answers.empty():
            self._note(*self._answers.get())
        for session in tuple(self._waiting):
            if session.left_to_its_loop or _is_paused(session.loop):
                self._note(session, None)

    def _note(self, session: Session, error: BaseException | None) -> None:
        if session not in self._waiting:
            return
        self._waiting.remove(session)
        if isinstance(error, Exception):
            self._failures.append(error)
        if session.state is not State.CLOSED and not session.left_to_its_loop:
            self._ask(session)

    def _cut_off(self, running: asyncio.AbstractEventLoop | None) -> None:
        """Cut off every session, and give the other loops the moment that it takes."""
        for session in self._sessions:
            if _is_paused(session.loop):
                session.cut_off()
            else:
                on_its_loop(session, session.close_by_force)
        others = [session for session in self._sessions if session.loop is not running]
        deadline = time.monotonic() + _TO_CUT_OFF
        while any(session.state is not State.CLOSED for session in others) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _raise_failures(self) -> None:
        """Raise what went wrong, all of it together, and name what is still open."""
        if self._waiting:
            loops = ", ".join(sorted({repr(session.loop) for session in self._waiting}))
            left_open = ["a session on an event loop that did not answer"] * len(self._waiting)
            self._failures.append(
                StoreCloseError(
                    f"Closing {self._what()} took more than close_timeout={self._timeout} seconds. "
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


def close_in_background(sessions: Iterable[Session], timeout: float) -> None:
    """Close sessions without waiting for it, from any thread: of a loop that does not run they are cut off."""
    for session in sessions:
        on_its_loop(session, session.close_soon, Drain.ALL, timeout)
        if not session.loop.is_running():
            session.cut_off()


def on_its_loop(session: Session, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Take a step with a session on the thread of its loop, without waiting for it; if that is closed, cut it off."""
    if not _call_soon(session.loop, step, *args, **kwargs):
        session.cut_off()


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Have a loop of any thread make a call; return False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(functools.partial(call, *args, **kwargs))
    except RuntimeError:
        return False
    return True


def _is_paused(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop of another thread does not run, and is not merely between the steps in which `run` ends it."""
    for _ in range(3):
        if loop.is_running():
            return False
        if loop.is_closed():
            return True
        time.sleep(0.0005)
    return True
