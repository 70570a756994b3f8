"""The detectors of this process: installed while any check is on, once for all of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from managed_store.testing._detectors import DETECTORS, Detector, Found
from managed_store.testing._opened import nothing_since, number
from managed_store.testing._patches import Patches
from managed_store.testing._report import Leak

__all__ = ["WATCH", "Mark", "Watch"]


class Mark(NamedTuple):
    """The moment that a check began."""

    process: int
    number: int
    below_python: tuple[Any, ...]
    """As those detectors remember it that find what was never noticed."""


class Watch:
    """Installs the detectors when the first check begins, and takes them out when the last one ends.

    Checks may be nested, and begin and end on any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # a child of a fork while another thread holds the lock would wait for ever
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
            )
        self._checks = 0
        self._patches = Patches()
        self._of_python: tuple[Detector, ...] = ()
        self._below_python: tuple[Detector, ...] = ()

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
        now = number()
        return Mark(os.getpid(), now, tuple([each.mark(now, quickly=quickly) for each in self._below_python]))

    def found(self, mark: Mark) -> Iterator[Found]:
        """What was opened after `mark` and is open. A forked child has inherited all of it, and opened none."""
        if os.getpid() != mark.process:
            return
        if not nothing_since(mark.number):
            for detector in self._of_python:
                yield from detector.leaks(mark.number)
        for detector, each in zip(self._below_python, mark.below_python, strict=True):
            yield from detector.leaks(each)

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
        detectors = [detector() for detector in DETECTORS]
        self._of_python = tuple(each for each in detectors if not each.below_python)
        self._below_python = tuple(each for each in detectors if each.below_python)
        for detector in detectors:
            detector.install(self._patches)
        self._patches.begin()

    def _take_out(self) -> None:
        self._patches.undo()
        self._of_python = self._below_python = ()


WATCH = Watch()
