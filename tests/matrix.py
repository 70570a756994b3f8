"""The leak matrix: every backend in every use, with this package and with plain zarr, each in a process of its own.

``python -m tests.matrix`` runs all of it and prints a table; ``--write docs/backends.md`` writes that as a page.
``--backend`` and ``--use`` (each may be repeated) run a part. ``--also PYTHON`` makes the same uses with another
interpreter too, whose environment has other versions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.footprint import NOTHING
from tests.matrix_table import Row, backends_page, printed, versions_with
from tests.places import Place, Places
from tests.uses import USES
from tests.variants import VARIANTS, WRITABLE, place_of_variant

__all__ = ["Outcome", "run_cells", "uses_of", "without_noise"]

# What is written to stderr and is nobody's leak, each with the reason why it may be.
NOISE = [
    # asyncio notes slow callbacks in debug mode; building an S3 client on the loop is one.
    r"Executing <(Task|Handle|TimerHandle) [^\n]* took \d+\.\d+ seconds\n",
    # gcsfs's note that the server speaks no gRPC.
    r"Could not determine bucket type[^\n]*\n",
    # gRPC's poller, bound to the first loop, wakes up a loop that was closed with calls pending.
    r"Exception in callback PollerCompletionQueue\._handle_events(?s:.*?)\nRuntimeError: Event loop is closed\n",
]


@dataclass(frozen=True)
class Outcome:
    """What came of one use.

    Attributes
    ----------
    grown : dict or None
        What the process held more of afterwards; None if it ended before it could tell.
    error : str or None
        The error that the use ended with.
    stderr : list of str
        What was written to stderr until the process had ended, but for known noise.
    code : int
        The exit code of the process.
    trace : str
        The traceback of the error.
    """

    grown: dict[str, int] | None
    error: str | None
    stderr: list[str]
    code: int
    trace: str = ""

    @property
    def passed(self) -> bool:
        """Whether the data was right, nothing was left, and stderr was silent."""
        return self.grown == NOTHING and self.error is None and not self.stderr and self.code == 0

    def __str__(self) -> str:
        left = {name: count for name, count in (self.grown or {}).items() if count}
        return "\n".join([f"left {left}, error {self.error}, exit code {self.code}", self.trace, *self.stderr])


def uses_of(variant: str) -> list[str]:
    """The uses that can be made of a backend."""
    left_out = set() if variant in WRITABLE else {"write"}
    return [use for use in USES if use not in left_out]


def run_cells(
    place: Place, uses: Sequence[str], *, plain: bool, together: bool = False, python: str = sys.executable
) -> dict[str, Outcome]:
    """Make these uses of a place, each in a process of its own, or all in one."""
    config = {
        "url": place.url, "options": place.options, "memory": place.memory, "in_cycles": place.in_cycles,
        "uses": list(uses), "plain": plain, "together": together,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="cells-") as folder:
        # Plain zarr warns where it goes on all the same: as an error that would look like a failure of its own.
        strict = [] if plain else ["-W", "error"]
        settings = {"TMPDIR": folder, "GRPC_VERBOSITY": "NONE", "OPENBLAS_NUM_THREADS": "1"}
        result = subprocess.run(
            [python, "-X", "dev", *strict, "-m", "tests.cell", repr(config)],
            env={**os.environ, **place.environment, **settings},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=40 * len(uses),
        )
    if result.returncode or not result.stdout:
        raise RuntimeError(f"the cells could not be run ({result.returncode}):\n{result.stderr}")
    report: dict[str, dict[str, Any]] = json.loads(result.stdout.splitlines()[-1])
    for outcome in report.values():
        outcome["stderr"] = without_noise(outcome["stderr"])
    return {use: Outcome(**outcome) for use, outcome in report.items()}


def without_noise(stderr: str) -> list[str]:
    """The lines of stderr, but for known noise."""
    for noise in NOISE:
        stderr = re.sub(rf"^{noise}", "", stderr, flags=re.MULTILINE)
    return stderr.splitlines()


def run_matrix(
    variants: Sequence[str], uses: Sequence[str], *, pythons: Sequence[str] = (sys.executable,), plain: bool = True
) -> dict[str, Row]:
    """Run a part of the matrix; gives for each backend the outcomes of this package, and of plain zarr."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="matrix-")))
        places = Places(stack, folder)
        at = {variant: place_of_variant(variant, places) for variant in variants}

        def run(variant: str) -> Row:
            wanted = [use for use in uses_of(variant) if use in uses]
            managed = [run_cells(at[variant], wanted, plain=False, python=python) for python in pythons]
            row = Row(managed, run_cells(at[variant], wanted, plain=True) if plain else {})
            print(f"{variant}: {', '.join(row.passed())}", file=sys.stderr)
            return row

        with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as executor:  # one more: plain zarr often hangs
            return dict(zip(variants, executor.map(run, variants), strict=True))


def main() -> int:
    """Run the matrix as a program; returns 1 if a cell of this package failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--backend", action="append", choices=list(VARIANTS), help="run this backend only")
    parser.add_argument("--use", action="append", choices=list(USES), help="make this use only")
    parser.add_argument("--also", action="append", default=[], metavar="PYTHON", help="use this interpreter too")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as a page of the documentation")
    parser.add_argument("--no-plain", action="store_true", help="leave out plain zarr")
    arguments = parser.parse_args()
    started = time.monotonic()
    pythons = [sys.executable, *arguments.also]
    rows = run_matrix(
        arguments.backend or list(VARIANTS),
        arguments.use or list(USES),
        pythons=pythons,
        plain=not arguments.no_plain,
    )
    cells = [
        (f"{variant}: {use}, {python}", outcome)
        for variant, row in rows.items()
        for python, managed in zip(pythons, row.managed, strict=True)
        for use, outcome in managed.items()
    ]
    failed = [(name, outcome) for name, outcome in cells if not outcome.passed]
    for name, outcome in failed:
        print(f"--- {name}: {outcome}\n")
    versions = [versions_with(python) for python in pythons]
    print(printed(rows, versions))
    print(f"\n{len(cells) - len(failed)} of {len(cells)} cells passed, in {time.monotonic() - started:.0f} s")
    if arguments.write:
        arguments.write.write_text(backends_page(rows, versions))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
