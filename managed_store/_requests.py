"""The requests in flight on one event loop: counted, waited for, cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from managed_store._lifecycle import Drain, Request
from managed_store._recipe import Recipe

__all__ = ["RequestsInFlight"]

P = ParamSpec("P")
T = TypeVar("T")

# How long, in seconds, to wait for a request that was cut off before cancelling it once more.
_CANCEL_AGAIN = 0.05


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
        self._requests: set[Request] = set()
        self.idle_since = time.monotonic()
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self._requests)

    async def run(
        self, asked: Recipe, writes: bool, operation: Callable[P, Coroutine[Any, Any, T]],
        *args: P.args, **kwargs: P.kwargs,
    ) -> T:  # fmt: skip
        """Run one request of the store `asked`, so that closing can wait for it or cut it off.

        Raises
        ------
        StoreClosedError
            The session was closed before the answer came.
        """
        task = asyncio.current_task()
        request = Request(task, writes, cancelling=0 if task is None else task.cancelling())
        self._requests.add(request)
        try:
            answer = await operation(*args, **kwargs)
        except BaseException as error:
            if not request.cut_off:
                raise
            # As `asyncio.timeout` does: a cancellation that is ours alone becomes our error, any other goes on.
            cancelled_by_others = task is not None and _uncancelled(task, request) > request.cancelling
            if cancelled_by_others and isinstance(error, asyncio.CancelledError):
                raise
            cause = None if isinstance(error, asyncio.CancelledError) else error
            raise asked.closed_error(" before the answer to this request came") from cause
        else:
            if request.cut_off and task is not None:  # the backend kept the cancellation to itself
                _uncancelled(task, request)
            return answer
        finally:
            self._requests.discard(request)
            if not self._requests:
                self.idle_since = time.monotonic()
                self._idle.set()
            # A task keeps the error that it ends with, the error this frame, and the frame would keep the task.
            del task, request

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
            while self._requests and loop.time() < deadline:
                await self._finished(min(deadline, loop.time() + _CANCEL_AGAIN))
                self._cancel(again=True)
            if not self._requests:
                return

    def _cancel(self, *, again: bool) -> None:
        """Cancel; `again` also what was cancelled before: adlfs keeps that to itself now and then, and goes on."""
        for request in tuple(self._requests):
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


def _uncancelled(task: asyncio.Task[Any], request: Request) -> int:
    """Take back the cancellations by which a request was cut off; return how many are left."""
    for _ in range(request.cut_off):
        task.uncancel()
    return task.cancelling()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs on this thread
        return None
