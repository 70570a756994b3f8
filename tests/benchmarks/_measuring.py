"""Measurements in alternating order, and the median of the ratios of two contenders with its confidence interval."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "FULL",
    "QUICK",
    "TINY",
    "Effort",
    "Line",
    "Measure",
    "compare",
    "environment",
    "interval",
    "timed",
    "verdict",
]

Measure = Callable[[], float]
"""Does its work once, and returns the seconds that it took."""


@dataclass(frozen=True)
class Effort:
    """How much work a benchmark does.

    Attributes
    ----------
    rounds, at_most : int
        How many times each contender is measured, at least and at most.
    seconds : float
        After how many seconds the rounds of a line end, if there were enough.
    at_once : float
        Seconds that one measurement takes at least, where that can be chosen.
    cycles, cycles_of_plain : int
        How many stores are opened and closed to see what grows; and where each leaves something open.
    processes : int
        In how many processes, one after the other: what one of them gains differs from what the next one does by more
        than its samples differ.
    tests : int
        How many tests the suites have with which `leak_check` is measured.
    connections : tuple of int
        With how many pooled connections a store is left.
    readers : tuple of int
        How many chunks are read at a time.
    chunks, large : int
        How many small chunks there are; bytes of a large chunk.
    backends, latencies : tuple
        What is read from, and how many seconds each request waits there.
    """

    rounds: int = 12
    at_most: int = 80
    seconds: float = 7.0
    at_once: float = 0.08
    cycles: int = 40_000
    cycles_of_plain: int = 400
    processes: int = 4
    tests: int = 1000
    connections: tuple[int, ...] = (1, 10, 100, 1000)
    readers: tuple[int, ...] = (1, 4, 16, 64, 256)
    chunks: int = 512
    large: int = 4 * 2**20
    backends: tuple[str, ...] = ("http", "https", "gs", "s3")
    latencies: tuple[float, ...] = (0.0, 0.02)


FULL = Effort()
QUICK = Effort(
    rounds=3, at_most=6, seconds=0.5, at_once=0.03, cycles=200, cycles_of_plain=40, processes=2, tests=100,
    connections=(1, 100), readers=(1, 64), large=2**20,
)  # fmt: skip
TINY = Effort(
    rounds=1, at_most=1, seconds=0, at_once=0, cycles=12, cycles_of_plain=12, processes=1, tests=3,
    connections=(2,), readers=(4,), chunks=8, large=2**16, backends=("s3",), latencies=(0.0,),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """How long one thing takes, as a multiple of another.

    Attributes
    ----------
    benchmark, name : str
        What was measured.
    against : str
        What it is compared with.
    ratio : float
        The median of the ratios of the rounds.
    low, high : float
        95 % confidence interval of that median, by bootstrap over the rounds.
    seconds, seconds_base : float
        Median time of the thing, and of what it is compared with.
    spread, spread_base : float
        Half of the distance of their quartiles, in seconds.
    rounds : int
        How many times both were measured.
    target : float or None
        What the ratio should not exceed.
    others : dict
        Median seconds of further contenders.
    left_out : dict
        Contenders that cannot do it, and why.
    """

    benchmark: str
    name: str
    against: str
    ratio: float
    low: float
    high: float
    seconds: float
    seconds_base: float
    spread: float
    spread_base: float
    rounds: int
    target: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["ratio"] = "ratio"

    @property
    def verdict(self) -> str:
        """Whether the target is met, if there is one."""
        return "" if self.target is None else verdict(self.ratio, self.low, self.target)

    def __str__(self) -> str:
        others = "".join(f", {name} {seconds * 1e3:.1f}" for name, seconds in self.others.items())
        return (
            f"{self.benchmark}: {self.name}: {self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.against} "
            f"({self.seconds * 1e3:.1f} ms against {self.seconds_base * 1e3:.1f}{others}; {self.rounds} rounds)"
            f"{self.verdict and f'; at most {self.target}: {self.verdict}'}"
        )


def verdict(ratio: float, low: float, target: float) -> str:
    """Say whether a target is met, behind, or not to be told apart, given the lower end of the interval."""
    if ratio <= target:
        return "met"
    return "within the error" if low <= target else "behind"


def timed(work: Callable[[], object]) -> Measure:
    """Make a measure of work that is measured as a whole."""

    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure


def environment() -> dict[str, str]:
    """Return that of a program to be measured: bytecode is kept, as that of every installed package is.

    Some images forbid it. And pytest's own options are those of the run that measures.
    """
    left_out = ("PYTEST_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def compare(
    benchmark: str,
    name: str,
    contenders: Mapping[str, Measure],
    *,
    effort: Effort,
    target: float | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Line:
    """Measure all contenders alternately, in an order that swaps from round to round, after one unmeasured round.

    Parameters
    ----------
    benchmark, name : str
        What is measured.
    contenders : mapping
        The first is compared with the second. The others are there to be seen, and measured in every fourth round.
    effort : Effort
        How many rounds, and how long.
    target : float, optional
        What the ratio should not exceed.
    left_out : mapping, optional
        Contenders that cannot do it, and why.

    Returns
    -------
    Line
        The median ratio and its interval.
    """
    mine, base, *others = contenders
    for measure in contenders.values():
        measure()
    times: dict[str, list[float]] = {each: [] for each in contenders}
    started = time.monotonic()
    while (done := len(times[mine])) < effort.at_most and (
        done < effort.rounds or time.monotonic() - started < effort.seconds
    ):
        for each in (mine, base) if done % 2 else (base, mine):
            times[each].append(contenders[each]())
        for each in others if done % 4 == 0 else ():
            times[each].append(contenders[each]())
    ratios = [one / another for one, another in zip(times[mine], times[base], strict=True)]
    low, high = interval(ratios)
    return Line(
        benchmark=benchmark,
        name=name,
        against=base,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        seconds=statistics.median(times[mine]),
        seconds_base=statistics.median(times[base]),
        spread=_spread(times[mine]),
        spread_base=_spread(times[base]),
        rounds=len(ratios),
        target=target,
        others={each: statistics.median(times[each]) for each in others},
        left_out=left_out or {},
    )


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of a median, by bootstrap."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(1000))
    return medians[25], medians[-26]


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(values, n=4)
    return (upper - lower) / 2
