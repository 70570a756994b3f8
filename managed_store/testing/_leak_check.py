"""`leak_check`: finds what a block of code opens and does not close, whoever leaked it, managed_store or not."""

from __future__ import annotations

import asyncio
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Literal, TypeAlias

from managed_store._notes import note_on
from managed_store.errors import ArgumentError, ArgumentTypeError, LeakError, LeakWarning
from managed_store.testing._report import Leak, LeakReport
from managed_store.testing._watch import WATCH, Mark

__all__ = ["leak_check"]

Predicate: TypeAlias = Callable[[Leak], bool]

_ON_LEAK = ("raise", "warn", "report")


class leak_check:  # noqa: N801  # used like a function, as contextlib's `suppress` is
    """Find what the block opens and does not close; a sync and async context manager.

    It finds aiohttp sessions and connectors, aiobotocore clients, gRPC aio channels, fsspec filesystems with a live
    session, sockets, event loops, non-daemon threads and pending tasks. Of each it tells what it is, where in the
    user's code it was made, on which event loop it lives, and whether that runs. Nothing of the program is changed,
    kept alive or collected by being watched, and no package is imported for it.

    Parameters
    ----------
    on_leak : {"raise", "warn", "report"}
        What to do if the block has left anything open: raise a `LeakError`, warn with a `LeakWarning`, or nothing
        but to make the report.
    ignore : callable, or iterable of callables, optional
        Each takes a `Leak` and says whether it is to be left out.
    grace : float, default 0.25
        Seconds to wait for what is being closed in the background: a socket under TLS closes a few turns of the loop
        after its session, gRPC's on threads of its own. It is waited for only while anything is open.

    Attributes
    ----------
    report : LeakReport
        What was left open. Empty until the block has ended.

    Raises
    ------
    LeakError
        On leaving, with ``on_leak="raise"``. Never in place of an exception of the block: that is raised as it is,
        with the report as a note.
    ArgumentError, ArgumentTypeError
        An argument cannot work.

    Warns
    -----
    LeakWarning
        On leaving, with ``on_leak="warn"``.

    Notes
    -----
    *Threads and loops.* The whole process is watched: what other threads open while the block runs counts as opened by
    it. Blocks may be nested, and be entered and left on any thread. Where an event loop is running, use ``async with``:
    it lets that loop turn until what is being closed is closed, which ``with`` cannot do, and so does not wait.

    *What is not a leak.* The event loops of zarr and fsspec and their threads, daemon threads, the default executors
    of event loops, dask's own pools of threads, and gRPC's process-wide poller.

    *A collected session* that was not closed counts: that it is torn down is chance. A socket that was collected does
    not, nor does a task or thread that has ended.

    *A forked child* that leaves the block reports nothing.

    Examples
    --------
    >>> import socket
    >>> from managed_store.testing import leak_check
    >>> with leak_check(on_leak="report") as check:
    ...     left = socket.socket()
    >>> print(check.report.summary)
    left open: 1 socket
    >>> left.close()
    """

    def __init__(
        self,
        *,
        on_leak: Literal["raise", "warn", "report"] = "raise",
        ignore: Predicate | Iterable[Predicate] = (),
        grace: float = 0.25,
    ) -> None:
        if on_leak not in _ON_LEAK:
            raise ArgumentError(f"on_leak must be 'raise', 'warn' or 'report'; got {on_leak!r}.")
        if isinstance(grace, bool) or not isinstance(grace, int | float):
            raise ArgumentTypeError(f"grace must be a number of seconds; got {type(grace).__name__}.")
        if not (math.isfinite(grace) and grace >= 0):
            raise ArgumentError(f"grace must be a finite number of seconds, 0 or more; got {grace!r}.")
        self._on_leak = on_leak
        self._ignore = _predicates(ignore)
        self._grace = grace
        self._mark: Mark | None = None
        self.report: LeakReport = LeakReport()

    def so_far(self) -> LeakReport:
        """Return what the block has opened by now and has open, without waiting for anything.

        Returns
        -------
        LeakReport
            What is open now; after the block has ended, what it has left open.
        """
        if self._mark is None:
            return self.report
        return LeakReport(WATCH.leaks(self._mark)).without(*self._ignore)

    @classmethod
    def _since(cls, mark: Mark) -> leak_check:
        """One that is on since then, for whom the watch is kept: it is only to be asked."""
        check = cls(on_leak="report")
        check._mark = mark
        return check

    def __enter__(self) -> leak_check:
        if self._mark is not None:
            raise ArgumentError("This leak_check is on already: make another for a nested block.")
        self.report = LeakReport()
        self._mark = WATCH.begin()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.report = self.so_far()
            if asyncio._get_running_loop() is None:  # which would be kept from closing anything
                for pause in self._pauses(error):
                    time.sleep(pause)
                    self.report = self.so_far()
        except Exception as failure:  # of a function to ignore leaks
            self._note(failure, error)
        finally:
            self._end()
        self._tell(error)

    async def __aenter__(self) -> leak_check:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.report = self.so_far()
            if asyncio._get_running_loop() is not None:  # not trio's
                for pause in self._pauses(error):
                    await asyncio.sleep(pause)
                    self.report = self.so_far()
        except asyncio.CancelledError:
            if error is None:
                raise
            note_on(error, "While leaving the block, its task was cancelled.")
        except Exception as failure:  # of a function to ignore leaks
            self._note(failure, error)
        finally:
            self._end()
        self._tell(error)

    def _pauses(self, error: BaseException | None) -> Iterator[float]:
        """How long to wait before looking again, while anything is open; not after a cancellation or Ctrl-C."""
        deadline, pause = time.monotonic() + self._grace, 0.0
        hurried = error is not None and not isinstance(error, Exception)
        while self.report and not hurried and time.monotonic() < deadline:
            yield pause
            pause = min(pause + 0.002, 0.02)

    def _end(self) -> None:
        if self._mark is None:  # left before: the watch is kept for others by now
            raise ArgumentError("This leak_check is not on: it is left once for each time that it is entered.")
        self._mark = None
        WATCH.end()

    def _note(self, failure: Exception, error: BaseException | None) -> None:
        """Raise what went wrong in looking; but never in place of an exception of the block."""
        if error is None:
            raise failure
        note_on(error, f"The block was left with this error, and leak_check failed with {failure!r}")

    def _tell(self, error: BaseException | None) -> None:
        if not self.report or self._on_leak == "report":
            return
        if error is not None:
            note_on(error, f"The block was left with this error, and {self.report}")
        elif self._on_leak == "raise":
            raise LeakError(f"The block has {self.report}", self.report)
        else:
            warnings.warn(LeakWarning(f"The block has {self.report}"), stacklevel=3)


def _predicates(ignore: Predicate | Iterable[Predicate]) -> tuple[Predicate, ...]:
    if callable(ignore):
        return (ignore,)
    if isinstance(ignore, str | bytes) or not isinstance(ignore, Iterable):
        raise ArgumentTypeError(f"ignore must be a function of a Leak, or several; got {type(ignore).__name__}.")
    predicates = tuple(ignore)
    for predicate in predicates:
        if not callable(predicate):
            raise ArgumentTypeError(f"ignore must hold functions of a Leak; got {type(predicate).__name__} in it.")
    return predicates
