"""The detectors of this process: installed while any check is on, once for all of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from managed_store.testing._detectors import DETECTORS, Detector, Found, Mark, SocketDetector
from managed_store.testing._opened import number
from managed_store.testing._patches import Patches
from managed_store.testing._report import Leak

__all__ = ["WATCH", "Mark", "Watch"]


class Watch:
    """Installs the detectors when the first check begins, and takes them out when the last one ends.

    Checks may be nested, and begin and end on any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # a child of a fork while another thread holds the lock would wait for ever
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forked
            )
        self._checks = 0
        self._patches = Patches()
        self._sockets = SocketDetector()
        self._detectors: tuple[Detector, ...] = ()
        self._process = object()

    def begin(self) -> Mark:
        """Begin a check: from now on, what is opened is noticed."""
        with self._lock:
            if self._checks == 0:
                try:
                    self._install()
                except BaseException:  # a module that is not what its name says, or Ctrl-C
                    self._take_out()
                    raise
            self._checks += 1
        return self.mark()

    def mark(self, *, quickly: bool = False) -> Mark:
        """Return the present moment; quickly, where nothing but pytest itself has run since the last look."""
        self._patches.catch_up()
        return Mark(self._process, number(), self._sockets.seen(quickly=quickly))

    def nothing_since(self, mark: Mark) -> bool:
        """Whether nothing was opened after `mark`: all that a test costs that opens nothing. False can be wrong."""
        return number() == mark.number + 1 and self._sockets.is_as(mark.seen)

    def found(self, mark: Mark) -> Iterator[Found]:
        """What was opened after `mark` and is open. A forked child has inherited all of it, and opened none."""
        if mark.process is self._process:
            for detector in self._detectors:
                if detector.opened.last > mark.number or detector is self._sockets:
                    yield from detector.leaks(mark)

    def leaks(self, mark: Mark) -> tuple[Leak, ...]:
        """The same, without the things themselves."""
        return tuple(leak for leak, _ in self.found(mark))

    def end(self) -> None:
        """End a check; after the last one everything is as it was before."""
        with self._lock:
            self._checks -= 1
            if self._checks == 0:
                self._take_out()

    def _install(self) -> None:
        self._detectors = tuple(detector() for detector in DETECTORS)
        (self._sockets,) = (each for each in self._detectors if isinstance(each, SocketDetector))
        for detector in self._detectors:
            detector.install(self._patches)
        self._patches.begin()

    def _take_out(self) -> None:
        self._patches.undo()
        self._detectors = ()

    def _forked(self) -> None:
        self._process = object()
        self._lock.release()


WATCH = Watch()
