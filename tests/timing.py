"""How long something takes, on a machine that may be busy with other things."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stopwatch", "at_most"]

# What a block is given besides, in seconds.
_SLACK = 0.3


class Stopwatch:
    """Runs from the moment at which it is made."""

    def __init__(self) -> None:
        self._waited = _waited_for_a_processor()
        self._started = time.monotonic()

    def took(self) -> float:
        """Seconds since then, but for those in which threads of this process waited for a processor.

        Where several waited at a time it is too little, never too much: on a machine that is not busy none of them do.
        """
        return time.monotonic() - self._started - max(0.0, _waited_for_a_processor() - self._waited)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """The block takes no longer, but for what the machine is to blame for."""
    watch = Stopwatch()
    yield
    took = watch.took()
    assert took <= seconds + _SLACK, f"it took {took:.2f} s"


def _waited_for_a_processor() -> float:
    """Seconds for which the threads that there are, taken together, have waited because others ran."""
    nanoseconds = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/schedstat", encoding="ascii") as file:
                nanoseconds += int(file.read().split()[1])
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            pass
    return nanoseconds / 1e9
