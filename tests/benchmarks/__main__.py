"""What managed_store costs against what it wraps, measured alternately in one run.

``python -m tests.benchmarks [NAME ...] [--quick] [--json FILE] [--write DOCS]``
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import growth, leak_check, leaving, opening, processes, reading, service
from tests.benchmarks._measuring import FULL, QUICK, Effort
from tests.benchmarks._results import Result, gathered, to_json
from tests.benchmarks._written import write

BENCHMARKS: dict[str, Any] = {
    "reading": reading,
    "opening": opening,
    "leaving": leaving,
    "growth": growth,
    "processes": processes,
    "service": service,
    "leak_check": leak_check,
}

VERDICTS = ("met", "within the error", "behind")


def run(names: Sequence[str], effort: Effort, backends: Sequence[str]) -> Iterator[Result]:
    """Measure, with a progress bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {}
        for name in names:
            module = BENCHMARKS[name]
            of_it = {"backends": backends} if name == "growth" else {}
            bars[name] = (
                progress.add_task(name, total=module.planned(effort, **of_it), start=False),
                partial(module.lines, effort, **of_it),
            )
        for bar, lines in bars.values():
            progress.start_task(bar)
            for result in lines():
                progress.update(bar, advance=1)
                progress.console.print(f"[{result.verdict or '-'}] {result}", markup=False, highlight=False)
                yield result


def main() -> None:
    """Run what is asked for, and write what has been measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"{', '.join(BENCHMARKS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="little of each, to see that it works")
    parser.add_argument("--seconds", type=float, help="for one line, once it has been measured a few times")
    parser.add_argument("--cycles", type=int, help="of growth; 40,000 without it")
    parser.add_argument("--backend", action="append", choices=growth.BACKENDS, help="of growth; http without it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DOCS",
        help="write benchmarks.json, benchmarks.md and the plots there; results of other names stay",
    )
    arguments = parser.parse_args()
    for name in arguments.name:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    # The server here has no gRPC, over which gcsfs would ask for a bucket's type before it writes.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    effort = QUICK if arguments.quick else FULL
    if arguments.seconds is not None:
        effort = replace(effort, seconds=arguments.seconds, rounds=min(effort.rounds, 8))
    if arguments.cycles is not None:
        effort = replace(effort, cycles=arguments.cycles)
    results = list(run(arguments.name or list(BENCHMARKS), effort, arguments.backend or growth.BACKENDS[:1]))
    if arguments.json:
        arguments.json.write_text(to_json(gathered(results)))
    if arguments.write:
        write(results, arguments.write, "A quick run, of few rounds." if arguments.quick else "")
    print(json.dumps({verdict: [each.verdict for each in results].count(verdict) for verdict in VERDICTS}))


if __name__ == "__main__":
    main()
