"""Open connections over time: a thread that counts them, and a small plot of the counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

__all__ = ["Sampler", "plot"]

# Seconds since the beginning, and how many there were.
Sample: TypeAlias = "tuple[float, int]"

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 60, 4


class Sampler:
    """Counts again and again, on a daemon thread.

    Parameters
    ----------
    count : callable
        Returns the number to note.
    interval : float
        Seconds between two counts.
    """

    def __init__(self, count: Callable[[], int], interval: float) -> None:
        self._count = count
        self._interval = interval
        self._samples: list[Sample] = []
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="managed-store sampler", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> list[Sample]:
        """Count once more, and return all counts."""
        self._stopping.set()
        self._thread.join()
        self._take()
        return self._samples

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take()
            self._stopping.wait(self._interval)

    def _take(self) -> None:
        self._samples.append((round(time.monotonic() - self._began, 3), self._count()))


def plot(samples: Sequence[Sample], *, name: str) -> str:
    """Draw the counts as bars, of each stretch of time the highest.

    Parameters
    ----------
    samples : sequence of (float, int)
        Seconds since the beginning, ascending, and the counts.
    name : str
        What was counted.

    Examples
    --------
    >>> print(plot([(0.0, 0), (1.0, 2), (2.0, 4)], name="open connections"))
    open connections over 2.0 s, at most 4, at the end 4
      4 |   █
        |   █
        |  ██
      0 |  ██
    """
    seconds = samples[-1][0] or 1.0
    columns = min(_WIDTH, len(samples))
    highest = [0] * columns
    for moment, count in samples:
        column = min(int(moment / seconds * columns), columns - 1)
        highest[column] = max(highest[column], count)
    top = max(*highest, 1)
    lines = [f"{name} over {samples[-1][0]:.1f} s, at most {max(highest)}, at the end {samples[-1][1]}"]
    width = max(3, len(str(top)))
    for row in reversed(range(_HEIGHT)):
        label = str(top) if row == _HEIGHT - 1 else "0" if row == 0 else ""
        eighths = (round(count / top * _HEIGHT * 8) - row * 8 for count in highest)
        bars = "".join(_BARS[min(max(each, 0), 8)] for each in eighths)
        lines.append(f"{label:>{width}} | {bars}".rstrip())
    return "\n".join(lines)
