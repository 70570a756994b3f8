"""Run the programs of the public threads on all their backends, plain and managed, and print what came of each.

``--write docs/threads.md`` writes that as a page. ``--program`` (may be repeated) runs some only. ``--also PYTHON``
runs them with another interpreter too, whose environment has other versions.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.matrix import Outcome
from tests.matrix_table import versions_with
from tests.places import Places
from tests.threads.page import Results, threads_page
from tests.threads.running import PROGRAMS, forms_of, plain_symptoms, run_programs
from tests.variants import place_of_variant


def run_all(names: Sequence[str], pythons: Sequence[str]) -> Results:
    """Run both forms of these programs on all their backends with each interpreter."""
    on = defaultdict(list)
    for name in names:
        for backend in plain_symptoms(name):
            on[backend].append(name)
    results: dict[tuple[str, str], list[dict[str, Outcome]]] = defaultdict(list)
    with ExitStack() as stack:
        places = Places(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="threads-"))))
        for backend, programs in on.items():
            for python in pythons:
                forms = {name: forms_of(name, backend) for name in programs}
                outcomes = run_programs(forms, place_of_variant(backend, places), python=python)
                for name in programs:
                    results[name, backend].append(outcomes[name])
            print(f"{backend}: {len(programs)} programs", file=sys.stderr)
    return results


def problems(results: Results, pythons: Sequence[str]) -> list[str]:
    """What is otherwise than expected."""
    found = []
    for (name, backend), each in results.items():
        for python, outcomes in zip(pythons, each, strict=True):
            where = f"{name} on {backend}, {python}"
            symptom = plain_symptoms(name)[backend]
            differs = [*symptom.missing_from(outcomes["plain"]), *symptom.uncaught_by(outcomes.get("watched"))]
            found += [f"{where}, plain: {line}" for line in differs]
            found += [] if outcomes["managed"].passed else [f"{where}, managed: {outcomes['managed']}"]
    return found


def main() -> int:
    """Run as a program; returns 1 if anything is otherwise than expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.threads", description=__doc__)
    parser.add_argument("--program", action="append", choices=PROGRAMS, help="run this program only")
    parser.add_argument("--also", action="append", default=[], metavar="PYTHON", help="use this interpreter too")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a page of the documentation")
    arguments = parser.parse_args()
    if arguments.write and arguments.program:
        parser.error("--write needs all programs, not some")
    pythons = [sys.executable, *arguments.also]
    results = run_all(arguments.program or PROGRAMS, pythons)
    found = problems(results, pythons)
    for line in found:
        print(f"--- {line}\n")
    page = threads_page(results, [versions_with(python) for python in pythons])
    if arguments.write:
        arguments.write.write_text(page)
    else:
        print(page)
    print(f"{len(results) * len(pythons)} programs run, {len(found)} results otherwise than expected")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
