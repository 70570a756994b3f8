"""The threads as a page of the documentation: what each program's plain form shows, and what its managed form."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.matrix import Outcome
from tests.matrix_table import general
from tests.threads import programs
from tests.threads.catalogue import NOT_REPRODUCED, REPRODUCED, Thread
from tests.threads.running import PROGRAMS, plain_symptoms

__all__ = ["Results", "not_reproduced", "reported", "threads_page"]

# For each program and backend, with each interpreter, each form's outcome.
Results = Mapping[tuple[str, str], Sequence[Mapping[str, Outcome]]]

# What a warning begins with.
_WHERE = re.compile(r"^\S+:\d+: ")

_HEAD = """# Public threads

What users of zarr, fsspec and its backends report about sessions that nobody closes, each as a program of a few lines
in `tests/threads/programs`, once with plain zarr and once with `ManagedStore`. This page is what
`python -m tests.threads` found: each form in a process of its own, under `-X dev`, against real servers on this
machine. Clean means that the program ended without an error, with no socket, descriptor, thread, task or temporary
file left at its last line, and with nothing on stderr until the process was gone. Whatever a plain form leaves open
is caught by `managed_store.testing.leak_check`, and nothing in a managed one.
"""

_VERSIONS = """
## Versions

{versions}

gcsfs ran with its plain class (`GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false`).
"""

_NOT = """
## Not reproduced

"""


def threads_page(results: Results, versions: Sequence[Mapping[str, str]]) -> str:
    """The whole page."""
    found = "\n".join("- " + ", ".join(f"{name} {version}" for name, version in each.items()) for each in versions)
    ran = {program for program, _ in results}
    sections = "".join(_section(program, results, versions) for program in REPRODUCED if program in ran)
    return _HEAD + sections + _NOT + "\n".join(not_reproduced()) + "\n" + _VERSIONS.format(versions=found)


def reported(program: str) -> str:
    """A program's heading, what it is about and who reports it: what needs no run."""
    about = (ast.get_docstring(ast.parse(_source(program).read_text())) or "").splitlines()[0]
    threads = ", ".join(_link(name) for name in REPRODUCED[program])
    gone = dict.fromkeys(each.gone for each in plain_symptoms(program).values() if each.gone)
    more = "".join(f" No more: {each}." for each in gone)
    return f"\n## {program}\n\n{about.replace('``', '`')} Reported in {threads}.{more}\n"


def not_reproduced() -> list[str]:
    """A line for each reason."""
    return [f"- {reason}: {', '.join(map(_link, threads))}." for reason, threads in NOT_REPRODUCED.items()]


def _section(program: str, results: Results, versions: Sequence[Mapping[str, str]]) -> str:
    head = ["backend", *(f"plain, zarr {each['zarr']}" for each in versions)]
    head += [f"`ManagedStore`, zarr {each['zarr']}" for each in versions]
    rows = [head, ["---"] * len(head)]
    for backend in plain_symptoms(program):
        plain, managed = ([_told(each[form]) for each in results[program, backend]] for form in ("plain", "managed"))
        rows.append([backend, *plain, *managed])
    return reported(program) + "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _told(outcome: Outcome) -> str:
    """What came of a form, in a line."""
    if outcome.passed:
        return "clean"
    left = {name: count for name, count in (outcome.grown or {}).items() if count > 0}
    name = next((name for name in ("sockets", "threads", "tasks", "temporary", "descriptors") if name in left), None)
    parts = []
    if name is not None:
        unit = "temporary files" if name == "temporary" else name
        parts.append(f"leaves {left[name]} {unit if left[name] > 1 else unit.removesuffix('s')}")
    if outcome.error is not None:
        parts.append(f"`{general(outcome.error)}`".replace("|", "/"))
    said = [line for line in outcome.stderr if _is_telling(line)]
    if said:
        parts.append(f"says `{general(_WHERE.sub('', said[0]))}`".replace("|", "/"))
    return "; ".join(parts) or f"exit code {outcome.code}"


def _is_telling(line: str) -> bool:
    starts = (
        "Traceback",
        " ",
        "ResourceWarning: Enable",
        "RuntimeWarning: Enable",
        "Exception ignored",
        "source_traceback",
    )
    return not line.startswith(starts)


def _link(name: str) -> str:
    return f"[{name}]({Thread(name).url})"


def _source(program: str) -> Path:
    assert program in PROGRAMS
    return Path(programs.__path__[0], f"{program}.py")
