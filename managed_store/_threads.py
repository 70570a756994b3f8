"""Blocking calls in threads of our own, awaited on an event loop.

Not `asyncio.to_thread`: that leaves workers in the loop's default executor, which on zarr's loop live until the
interpreter exits, and a call that hangs there would keep the interpreter from exiting. These threads are daemons.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Workers", "in_helper_thread"]

T = TypeVar("T")


async def in_helper_thread(call: Callable[[], T], *, discard: Callable[[T], None] = lambda result: None) -> T:
    """Run `call` in a thread of its own, with the caller's context variables, and return what it returns.

    Parameters
    ----------
    call : callable
        The blocking call.
    discard : callable, optional
        Given the result if nobody waits for it any more, because the caller was cancelled or the loop has ended.
        Runs in the helper thread or on the loop; must not raise.

    Returns
    -------
    T
        What `call` returned.
    """
    job = _Job(call, discard)
    thread = threading.Thread(target=job.run, name="managed-store-call", daemon=True)
    thread.start()
    try:
        return await job.result()
    finally:
        if job.answered:
            thread.join()  # its last statement has run: this waits microseconds, and leaves no thread behind


class Workers:
    """A few threads that run the blocking calls of one event loop, each call in its turn.

    Used on the thread of that loop alone, but for `stop`. A call whose caller was cancelled runs to its end, and keeps
    its thread for as long: a connection that bears one request at a time is never asked twice at once.

    Parameters
    ----------
    limit : int
        How many calls may run at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished: set[_Job[Any]] = set()
        self._stopped = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in one of the threads, with the caller's context variables, and return what it returns."""
        if self._stopped:
            raise RuntimeError("these workers have stopped")
        job = _Job(call, lambda result: None)
        self._unfinished.add(job)
        if len(self._threads) < min(self._limit, len(self._unfinished)):
            thread = threading.Thread(target=self._work, name="managed-store-worker", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)
        return await job.result()

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return any(job.running for job in tuple(self._unfinished))

    @property
    def alive(self) -> bool:
        """Whether any of the threads has not ended."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Let each thread end after the call that it is running. From any thread; waits for nothing."""
        if not self._stopped:
            self._stopped = True
            for job in tuple(self._unfinished):
                job.skip()
            for _ in self._threads:
                self._jobs.put(None)

    async def stopped(self) -> None:
        """Stop, and wait until the threads have ended."""
        self.stop()
        pause = 0.0
        while self.alive:
            await asyncio.sleep(pause)
            pause = min(pause + 0.0005, 0.01)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            self._unfinished.discard(job)
            del job  # or the caller's context variables are kept until the next one comes


class _Job(Generic[T]):
    """One call, and the way of its result to the loop that waits for it."""

    def __init__(self, call: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._call = call
        self._discard = discard
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._arrived: asyncio.Future[T] | None = self._loop.create_future()
        self._skipped = False
        self.running = False
        self.answered = False

    def skip(self) -> None:
        """Do not begin the call, if it has not begun."""
        self._skipped = True

    async def result(self) -> T:
        """Wait for the result, once."""
        arrived = self._arrived
        assert arrived is not None
        try:
            return await arrived
        except asyncio.CancelledError:
            self.skip()
            # The result can have arrived in the very turn in which the caller was cancelled: it would be lost.
            if self.answered and not arrived.cancelled() and arrived.exception() is None:
                self._discard(arrived.result())
            raise
        finally:
            # An error refers to this frame by its traceback: a reference back would keep both until they are collected.
            self._arrived = None
            del arrived

    def run(self) -> None:
        """Make the call. Runs in a thread."""
        if self._skipped:
            return
        self.running = True
        try:
            try:
                result = self._context.run(self._call)
            finally:
                self.running = False
        except BaseException as error:  # carried over to the caller, whatever it is
            self._tell(self._deliver_error, error, otherwise=lambda: None)
        else:
            self._tell(self._deliver, result, otherwise=lambda: self._discard(result))

    def _tell(self, deliver: Callable[[Any], None], outcome: object, *, otherwise: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(deliver, outcome)
        except RuntimeError:  # the loop is closed, so nobody can be waiting
            otherwise()

    def _deliver(self, result: T) -> None:
        if self._arrived is None or self._arrived.done():  # the caller was cancelled
            self._discard(result)
        else:
            self.answered = True
            self._arrived.set_result(result)

    def _deliver_error(self, error: BaseException) -> None:
        if isinstance(error, StopIteration):  # the one exception that no future takes
            stopped, error = error, RuntimeError("the call raised StopIteration")
            error.__cause__ = stopped
        if self._arrived is not None and not self._arrived.done():
            self.answered = True
            self._arrived.set_exception(error)
