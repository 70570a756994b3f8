"""Paired measurements in alternating order, and the median of their ratios with its confidence interval."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """How long one thing takes, as a multiple of another.

    Attributes
    ----------
    name : str
        What was measured.
    ratio : float
        The median of the ratios of the pairs.
    low, high : float
        95 % confidence interval of that median, by bootstrap over the pairs.
    seconds, seconds_base : float
        Median time of the thing, and of what it is compared with.
    pairs : int
        How many pairs were measured.
    """

    name: str
    ratio: float
    low: float
    high: float
    seconds: float
    seconds_base: float
    pairs: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.seconds * 1e3:.1f} ms against {self.seconds_base * 1e3:.1f} ms, {self.pairs} pairs)"
        )

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def compare(name: str, measure: Callable[[], float], measure_base: Callable[[], float], *, pairs: int) -> Comparison:
    """Measure both alternately, in an order that swaps from pair to pair, after one unmeasured pair.

    Parameters
    ----------
    name : str
        What is measured.
    measure, measure_base : callable
        Each does its work once and returns the seconds that it took.
    pairs : int
        How many pairs to measure.

    Returns
    -------
    Comparison
        The median ratio and its interval.
    """
    measure(), measure_base()
    times: list[tuple[float, float]] = []
    for index in range(pairs):
        if index % 2:
            base = measure_base()
            times.append((measure(), base))
        else:
            times.append((measure(), measure_base()))
    ratios = [mine / base for mine, base in times]
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=pairs)) for _ in range(2000))
    return Comparison(
        name=name,
        ratio=statistics.median(ratios),
        low=medians[50],
        high=medians[-51],
        seconds=statistics.median(mine for mine, _ in times),
        seconds_base=statistics.median(base for _, base in times),
        pairs=pairs,
    )
