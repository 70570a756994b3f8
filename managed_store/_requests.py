"""The requests in flight on one event loop: counted, waited for, cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from managed_store._lifecycle import Drain, Request
from managed_store.errors import StoreClosedError

__all__ = ["RequestsInFlight"]

P = ParamSpec("P")
T = TypeVar("T")


class RequestsInFlight:
    """What a session is waiting for. Used on the thread of the session's loop alone.

    Parameters
    ----------
    closed_error : callable
        Makes the error for a request that was cut off, given when that was.
    """

    def __init__(self, closed_error: Callable[[str], StoreClosedError]) -> None:
        self._closed_error = closed_error
        self._requests: set[Request] = set()
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self._requests)

    async def run(
        self, writes: bool, operation: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run one request, so that closing can wait for it or cut it off.

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
            raise self._closed_error(" before the answer to this request came") from cause
        else:
            if request.cut_off and task is not None:  # the backend kept the cancellation to itself
                _uncancelled(task, request)
            return answer
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._idle.set()

    def cut_off(self, drain: Drain, *, again: bool = False) -> None:
        """Cancel every request that may not finish. Their tasks raise StoreClosedError, not the cancellation.

        Parameters
        ----------
        drain : Drain
            Which requests may finish.
        again : bool
            Also those that were cancelled before: adlfs keeps a cancellation to itself now and then, and goes on.
        """
        for request in tuple(self._requests):
            if request.may_finish(drain) or request.task in (None, _current_task()):
                continue
            if again or not request.cut_off:
                request.cut_off += 1
                request.task.cancel()

    async def finished(self, deadline: float) -> bool:
        """Wait until no request is in flight, or the loop's clock shows `deadline`; return whether none is."""
        while self._requests:
            self._idle.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._idle.wait()
            except TimeoutError:
                return False
        return True


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
