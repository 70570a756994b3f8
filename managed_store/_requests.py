"""The requests in flight on one event loop: counted, waited for, cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from managed_store._lifecycle import Drain
from managed_store._recipe import Recipe

__all__ = ["RequestsInFlight"]

# A request is known by the task that awaits its answer: a task awaits one at a time. None stands for no task.
Waiting: TypeAlias = "asyncio.Task[Any] | None"

# How long, in seconds, to wait for a request that was cut off before cancelling it once more.
_CANCEL_AGAIN = 0.05


class _Cancelled:
    """How often the task of a request was cancelled before it began, and to cut it off."""

    def __init__(self, *, before: int = 0) -> None:
        self.before = before
        self.by_us = 0


class RequestsInFlight:
    """What a session is waiting for. Changed on the thread of the session's loop alone.

    Whoever makes a request enters its task where it belongs, and takes it out when the answer is there. No object is
    made for that, and no method called: where chunks are small it would be felt. See `GuardedStore.get`.

    Parameters
    ----------
    before_cut_off : callable
        Called before requests are cut off.

    Attributes
    ----------
    reads, writes : dict
        The tasks that await an answer, and the recipe of the store that each has asked.
    cancelled : dict
        Those of them that were cancelled before, or to cut them off: by that it is told from any other cancellation.
    """

    def __init__(self, *, before_cut_off: Callable[[], None]) -> None:
        self._before_cut_off = before_cut_off
        self._may_finish = Drain.ALL
        self.reads: dict[Waiting, Recipe] = {}
        self.writes: dict[Waiting, Recipe] = {}
        self.cancelled: dict[Waiting, _Cancelled] = {}
        self.idle_since = time.monotonic()
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self.reads) + len(self.writes)

    def begun_by_cancelled(self, task: asyncio.Task[Any]) -> None:
        """A task that was cancelled before makes a request: it is cleaning up."""
        self.cancelled[task] = _Cancelled(before=task.cancelling())

    def failed(self, task: Waiting, asked: Recipe, error: BaseException) -> None:
        """Raise StoreClosedError in place of the error of a request of the store `asked`, if it was cut off."""
        times = self.cancelled[task]
        was_cut_off, by_others = times.by_us > 0, self._uncancelled(task) > times.before
        del task  # which keeps the error that it ends with, and that this frame
        # As `asyncio.timeout` does: a cancellation that is ours alone becomes our error, any other goes on.
        if was_cut_off and not (by_others and isinstance(error, asyncio.CancelledError)):
            cause = None if isinstance(error, asyncio.CancelledError) else error
            raise asked.closed_error(" before the answer to this request came") from cause

    def ended(self, task: Waiting) -> None:
        """The last request has ended, or one whose task was cancelled."""
        if task in self.cancelled:
            self._uncancelled(task)  # an answer came all the same: the backend kept the cancellation to itself
            del self.cancelled[task]
        if not self:
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
        if self:
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
            while self and loop.time() < deadline:
                await self._finished(min(deadline, loop.time() + _CANCEL_AGAIN))
                self._cancel(again=True)
            if not self:
                return

    def _cancel(self, *, again: bool) -> None:
        """Cancel; `again` also what was cancelled before: adlfs keeps that to itself now and then, and goes on."""
        asking = _current_task()
        for waiting, may_finish in ((self.reads, Drain.ALL), (self.writes, Drain.WRITES)):
            if self._may_finish >= may_finish:
                continue
            for task in tuple(waiting):
                if task is None or task is asking:
                    continue
                times = self.cancelled.setdefault(task, _Cancelled())
                if again or not times.by_us:
                    times.by_us += 1
                    task.cancel()

    def _uncancelled(self, task: Waiting) -> int:
        """Take back the cancellations by which a request was cut off; return how many are left."""
        assert task is not None  # what no task awaits is never cancelled
        times = self.cancelled[task]
        for _ in range(times.by_us):
            task.uncancel()
        times.by_us = 0
        return task.cancelling()

    async def _finished(self, deadline: float) -> None:
        """Wait until no request is in flight, or the loop's clock shows `deadline`."""
        self._idle.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._idle.wait()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs on this thread
        return None
