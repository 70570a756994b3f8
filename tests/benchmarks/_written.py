"""The results in the documentation: ``benchmarks.json``, the page that is made from it, and the plots."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import _plots
from tests.benchmarks._measuring import Line, interval, verdict
from tests.benchmarks._results import Result, gathered, of_json, to_json
from tests.benchmarks.growth import Growth
from tests.benchmarks.reading import NAMES, TARGET

__all__ = ["page", "write"]

INTRODUCTION = """# What it costs

<!-- Made by `python -m tests.benchmarks --write docs`. -->

Every figure is a ratio: the contenders are measured in turns in one run, and what is given is the median of the ratios
of their rounds with its 95 % confidence interval. The servers are those of the tests, each in a process of its own on
the same machine, so that nothing hides behind a network; "20 ms" is a latency that the server adds to each request.
"plain" is zarr's `FsspecStore` with the same filesystem, which nobody closes.

A target is *met* where the median is, *within the error* where only the interval reaches it, and *behind* where not
even that does.
"""

READING = """The target of each line is 1.02. Contenders besides: zarr's `ObjectStore` over obstore, and bare aiohttp,
which gets the same values and does nothing with them. Milliseconds are medians ± half of the distance of the quartiles.
"""

GROWTH = """Gains in 1,000 cycles, in the second half of them, after as many to warm up: the mean of four processes with
its 95 % confidence interval. (Of "plain, distinct options", whose connections stay open, there is one.) Every cycle
has options of its own, as with rotating credentials, but for "pooled" and "plain, cached".
"""

BEHIND = """## Where it is behind, and why

- **Leaving with a single connection** takes about 0.06 ms more than closing a session by hand: it is a task of its own,
  which a cancellation does not interrupt and which has an end in any case, and it looks whether each socket is closed.
  A task that begins at once and tells directly that it has ended gave 1.63; 1.5 came only without the bounds in time
  and the watch for the end of the loop, which are promised. With ten connections little is seen of it.
- **A whole process** takes some 11 ms more. Some 6 ms are the import of this package, the rest is what its code does
  for the first time.
- **Blocks of a private store** are a few in 20,000 cycles. They are names of methods, which fsspec makes for every
  filesystem and Python keeps now and then: making and dropping fsspec's filesystems alone does so too.
- **leak_check** notes who opens each task and each socket, which is about 0.15 ms in a test that opens fifteen.
"""

_OTHERS = {
    "opening": "Opening, reading and closing",
    "leaving": "Leaving",
    "processes": "Whole processes",
    "service": "A web service",
    "leak_check": "Looking for leaks",
}


def write(results: Sequence[Result], docs: Path, note: str = "") -> None:
    """Write all of it, with a note to the reader; benchmarks that were not run now keep what they had, and its note."""
    file = docs / "benchmarks.json"
    kept: list[Result] = []
    if file.exists():
        on, before = of_json(file.read_text())
        now = {each.benchmark for each in results}
        kept = [each for each in before if each.benchmark not in now]
        note = note or (on["note"] if kept else "")
    file.write_text(to_json(gathered([*kept, *results], note)))
    on, read = of_json(file.read_text())
    (docs / "benchmarks.md").write_text(page(on, read))
    _plots.draw(read, docs / "drawings/benchmarks")


def page(on: dict[str, Any], results: Sequence[Result]) -> str:
    """Make the page."""
    lines = [each for each in results if isinstance(each, Line)]
    growth = [each for each in results if isinstance(each, Growth)]
    versions = ", ".join(f"{name} {version}" for name, version in on.items() if name not in ("cores", "system", "note"))
    parts = [
        INTRODUCTION,
        f"Measured on {on['system']}, {on['cores']} cores, with {versions}. {on['note']}".rstrip() + "\n",
        "## Reading, listing, writing\n",
        READING,
        _table(["the median of all lines of", "ratio", "target", ""], _summary(lines)),
    ]
    for operation, title in NAMES.items():
        of_it = _of(lines, title)
        if of_it:
            parts += [f"### {title.capitalize()}\n", _drawn(operation, title), _readings(of_it, title)]
    for benchmark, title in _OTHERS.items():
        of_it = [each for each in lines if each.benchmark == benchmark]
        if of_it:
            parts += [f"## {title}\n", *([_drawn(benchmark, title)] if benchmark == "leaving" else []), _ratios(of_it)]
    if growth:
        parts += ["## What grows\n", GROWTH, _drawn("growth", "Descriptors and memory over time"), _growths(growth)]
    return "\n".join([*parts, BEHIND])


def _of(lines: Sequence[Line], title: str) -> list[Line]:
    """The lines of one kind of reading."""
    return [each for each in lines if each.benchmark == "reading" and f", {title}, " in each.name]


def _summary(lines: Sequence[Line]) -> list[list[str]]:
    rows = []
    for title in NAMES.values():
        ratios = [each.ratio for each in _of(lines, title)]
        if ratios:
            low, high = interval(ratios)
            middle = statistics.median(ratios)
            rows.append(
                [f"{title} ({len(ratios)})", _ratio(middle, low, high), f"{TARGET}", verdict(middle, low, TARGET)]
            )
    return rows


def _readings(lines: Sequence[Line], title: str) -> str:
    others = sorted({name for each in lines for name in (*each.others, *each.left_out)})
    rows = [
        [
            each.name.replace(f"{title}, ", ""),
            _ratio(each.ratio, each.low, each.high),
            _milliseconds(each.seconds, each.spread),
            _milliseconds(each.seconds_base, each.spread_base),
            *(f"{each.others[name] * 1e3:.1f}" if name in each.others else "-" for name in others),
            each.verdict,
        ]
        for each in lines
    ]
    reasons = sorted({f"{name}: {reason}" for each in lines for name, reason in each.left_out.items()})
    notes = f"\nLeft out: {'; '.join(reasons)}.\n" if reasons else ""
    head = ["", "managed / plain", "managed, ms", "plain, ms", *(f"{name}, ms" for name in others), ""]
    return _table(head, rows) + notes


def _ratios(lines: Sequence[Line]) -> str:
    return _table(
        ["", "against", "ratio", "ms", "against, ms", "target", ""],
        [
            [
                each.name,
                each.against,
                _ratio(each.ratio, each.low, each.high),
                _milliseconds(each.seconds, each.spread),
                _milliseconds(each.seconds_base, each.spread_base),
                "" if each.target is None else f"{each.target}",
                each.verdict,
            ]
            for each in lines
        ],
    )


def _growths(growth: Sequence[Growth]) -> str:
    names = list(growth[0].slopes)
    return _table(
        ["", "cycles", "ms a cycle", *names, ""],
        [
            [
                each.name,
                f"{each.cycles:,}",
                f"{each.seconds / each.cycles * 1e3:.1f}",
                *(f"{gain:+,.2f} ± {error:,.2f}" for gain, error in each.slopes.values()),
                each.verdict,
            ]
            for each in growth
        ],
    )


def _ratio(ratio: float, low: float, high: float) -> str:
    return f"{ratio:.3f} [{low:.3f}, {high:.3f}]"


def _milliseconds(seconds: float, spread: float) -> str:
    digits = 1 if seconds >= 1e-3 else 3
    return f"{seconds * 1e3:.{digits}f} ± {spread * 1e3:.{digits}f}"


def _table(head: list[str], rows: Sequence[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _drawn(name: str, title: str) -> str:
    return f"![{title}](drawings/benchmarks/{name}.svg)\n"
