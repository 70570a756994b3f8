"""The plots of the results, as SVG: the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks._measuring import Line
from tests.benchmarks._results import Result
from tests.benchmarks.growth import Growth
from tests.benchmarks.reading import NAMES

__all__ = ["draw"]

_MANAGED, _PLAIN, _OTHER = "#00897b", "#c62828", "#78909c"
_COLOURS = {
    "private": _MANAGED, "pooled": "#1565c0",
    "plain, cached": "#ef6c00", "plain, closed by hand": _OTHER, "plain, distinct options": _PLAIN,
}  # fmt: skip
# Readable on the site's light and dark page alike.
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "managed_store", "font.family": "sans-serif", "font.size": 9,
    "text.color": _OTHER, "axes.labelcolor": _OTHER, "axes.edgecolor": _OTHER, "axes.titlecolor": _OTHER,
    "xtick.color": _OTHER, "ytick.color": _OTHER, "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def draw(results: Sequence[Result], folder: Path) -> None:
    """Draw everything that there are results for."""
    folder.mkdir(parents=True, exist_ok=True)
    readings = [each for each in results if isinstance(each, Line) and each.benchmark == "reading"]
    for operation, title in NAMES.items():
        of_it = [each for each in readings if f", {title}, " in each.name]
        _save(folder / f"{operation}.svg", of_it, partial(_ratios, title=title))
    _save(folder / "leaving.svg", [each for each in results if each.benchmark == "leaving"], _leaving)
    _save(folder / "growth.svg", [each for each in results if isinstance(each, Growth)], _growth)


def _save(file: Path, results: Sequence[Any], drawn: Callable[[Any], Figure]) -> None:
    if results:
        with mpl.rc_context(_STYLE):
            nameless = {"Date": None, "Creator": None}
            drawn(results).savefig(file, transparent=True, bbox_inches="tight", metadata=nameless)


def _ratios(lines: Sequence[Line], title: str) -> Figure:
    """A row for each line: its ratio, and the interval."""
    figure = Figure(figsize=(7, 0.6 + 0.19 * len(lines)))
    axes = figure.add_subplot()
    for row, line in enumerate(lines):
        colour = _PLAIN if line.verdict == "behind" else _MANAGED
        axes.plot([line.low, line.high], [row, row], color=colour, linewidth=1)
        axes.plot(line.ratio, row, "o", color=colour, markersize=3)
    axes.axvline(1, color=_OTHER, linewidth=0.8)
    axes.axvline(1.02, color=_OTHER, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(lines)), [line.name.replace(f"{title}, ", "") for line in lines], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(min(0.8, *(line.low for line in lines)), max(1.2, *(line.high for line in lines)))
    axes.set_xlabel("managed store's time, as a multiple of FsspecStore's (dotted: the target)")
    return figure


def _leaving(lines: Sequence[Line]) -> Figure:
    figure = Figure(figsize=(7, 3))
    axes = figure.add_subplot()
    connections = [int(line.name.split()[1]) for line in lines]
    axes.loglog(connections, [line.seconds * 1e3 for line in lines], "o-", color=_MANAGED, label="managed store")
    axes.loglog(connections, [line.seconds_base * 1e3 for line in lines], "o-", color=_OTHER, label="session.close()")
    axes.set_xlabel("pooled connections")
    axes.set_ylabel("ms to leave")
    axes.legend(frameon=False)
    return figure


def _growth(results: Sequence[Growth]) -> Figure:
    figure = Figure(figsize=(7, 3))
    for column, (held, label) in enumerate((("descriptors", "file descriptors"), ("MiB", "MiB of memory")), 1):
        axes = figure.add_subplot(1, 2, column)
        for each in results:
            kind = each.name.partition(", ")[2]
            cycles = [max(1.0, cycle) for cycle in each.samples["cycle"]]
            axes.semilogx(cycles, each.samples[held], color=_COLOURS[kind], label=kind, linewidth=1.2)
        axes.set_xlabel("stores opened, read and closed")
        axes.set_title(label, fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    return figure
