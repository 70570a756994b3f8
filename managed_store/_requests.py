"""The requests in flight on one event loop: counted, waited for, cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import current_task
from collections.abc import Callable
from types import TracebackType
from typing import Any

from managed_store._lifecycle import Drain
from managed_store._recipe import Recipe
from managed_store._wrapped import WrappedFsspecStore

__all__ = ["Request", "RequestsInFlight"]

# How long, in seconds, to wait for a request that was cut off before cancelling it once more.
_CANCEL_AGAIN = 0.05


class Request:
    """One request in flight, from entering it until it is left; then `StoreClosedError` if it was cut off.

    Not a coroutine that awaits the request: such a one would be resumed with it at each turn of the loop, and that
    alone is a hundredth of what reading a small chunk takes.

    Parameters
    ----------
    in_flight : RequestsInFlight
        Those that it is one of.
    wrapped : WrappedFsspecStore
        What is to be read or written. Given by entering.
    asked : Recipe
        That of the store that was asked.
    writes : bool
        Whether it writes or deletes.

    Attributes
    ----------
    task : asyncio.Task or None
        The task that awaits the answer; the one to cancel if the request must be cut off.
    writes : bool
        As given.
    cut_off : int
        How often the task was cancelled to cut the request off, which is told from any other cancellation by it.
    """

    __slots__ = ("_asked", "_cancelling", "_in_flight", "_wrapped", "cut_off", "task", "writes")

    def __init__(self, in_flight: RequestsInFlight, wrapped: WrappedFsspecStore, asked: Recipe, writes: bool) -> None:
        self._in_flight = in_flight
        self._wrapped = wrapped
        self._asked = asked
        self.task: Any = current_task()
        self.writes = writes
        self._cancelling = 0 if self.task is None else self.task.cancelling()
        self.cut_off = 0

    def __enter__(self) -> WrappedFsspecStore:
        self._in_flight.requests.add(self)
        return self._wrapped

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        in_flight = self._in_flight
        in_flight.requests.discard(self)
        if not in_flight.requests:
            in_flight.become_idle()
        if not self.cut_off:
            return
        # As `asyncio.timeout` does: a cancellation that is ours alone becomes our error, any other goes on.
        task, self.task = self.task, None  # which keeps the error that it ends with, and that this frame
        cancelled_by_others = task is not None and _uncancelled(task, self.cut_off) > self._cancelling
        del task
        if error is None or (cancelled_by_others and isinstance(error, asyncio.CancelledError)):
            return  # an answer came all the same: the backend kept the cancellation to itself
        cause = None if isinstance(error, asyncio.CancelledError) else error
        raise self._asked.closed_error(" before the answer to this request came") from cause

    def may_finish(self, drain: Drain) -> bool:
        """Whether this request is given time to finish under `drain`."""
        return drain is Drain.ALL or (drain is Drain.WRITES and self.writes)


class RequestsInFlight:
    """What a session is waiting for. Changed on the thread of the session's loop alone.

    Parameters
    ----------
    before_cut_off : callable
        Called before requests are cut off.
    """

    def __init__(self, *, before_cut_off: Callable[[], None]) -> None:
        self._before_cut_off = before_cut_off
        self._may_finish = Drain.ALL
        self.requests: set[Request] = set()
        self.idle_since = time.monotonic()
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self.requests)

    def become_idle(self) -> None:
        """The last request has ended."""
        self.idle_since = time.monotonic()
        self._idle.set()

    def cut_off(self, may_finish: Drain) -> None:
        """Cancel every request that may not finish. Their tasks raise StoreClosedError, not the cancellation.

        Parameters
        ----------
        may_finish : Drain
            Which requests may finish from now on; more than before never may.
        """
        self._may_finish = min(self._may_finish, may_finish)
        self._before_cut_off()
        self._cancel(again=False)

    async def drained(self, may_finish: Drain, *, until: float, by_force_until: float) -> None:
        """Let the requests finish that may, cut off the rest, and return when none is left or time is up.

        Parameters
        ----------
        may_finish : Drain
            Which requests may finish. `cut_off` may say less meanwhile.
        until, by_force_until : float
            Until when they may, and until when to wait for those that were cut off then, by the loop's clock.
        """
        loop = asyncio.get_running_loop()
        for drain, deadline in ((may_finish, until), (Drain.NOTHING, by_force_until)):
            self.cut_off(drain)
            while self.requests and loop.time() < deadline:
                await self._finished(min(deadline, loop.time() + _CANCEL_AGAIN))
                self._cancel(again=True)
            if not self.requests:
                return

    def _cancel(self, *, again: bool) -> None:
        """Cancel; `again` also what was cancelled before: adlfs keeps that to itself now and then, and goes on."""
        for request in tuple(self.requests):
            if request.may_finish(self._may_finish) or request.task in (None, _current_task()):
                continue
            if again or not request.cut_off:
                request.cut_off += 1
                request.task.cancel()

    async def _finished(self, deadline: float) -> None:
        """Wait until no request is in flight, or the loop's clock shows `deadline`."""
        self._idle.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._idle.wait()


def _uncancelled(task: asyncio.Task[Any], times: int) -> int:
    """Take back the cancellations by which a request was cut off; return how many are left."""
    for _ in range(times):
        task.uncancel()
    return task.cancelling()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs on this thread
        return None
