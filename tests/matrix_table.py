"""The leak matrix as a table: a row for each backend."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Row", "backends_page", "general", "plain_summary", "printed", "versions_with"]

_PACKAGES = (
    "zarr", "fsspec", "aiohttp", "gcsfs", "grpcio", "s3fs", "aiobotocore", "adlfs", "paramiko", "webdav4",
    "smbprotocol", "requests", "uvloop",
)  # fmt: skip

# What makes one run's messages differ from the next one's.
_PARTICULARS = re.compile(r"(\w+::)*\w+://[^\s'\"]*|(/[\w.~-]+){2,}/?|0x[0-9a-f]+|\d{4,}|\b127\.0\.0\.1(:\d+)?")

_HEAD = """# Backends

What `python -m tests.matrix` found: every backend in every use, each in a process of its own, under `-X dev -W error`
with the garbage collector off, against real servers on this machine. A cell passes when the data was right, no
socket, descriptor, thread, task or temporary file was left, and nothing was written to stderr.

The uses: through the synchronous API, the asynchronous one, under uvloop, by two runs of `asyncio.run`, by one API
after the other and by both at once, from several threads, by a derived handle alone, over a loop that was closed as it
was (`dropped_loop`), not at all, forgotten on either API; and, where the backend can, written.

"""

_FOOT = """
Plain zarr is `FsspecStore.from_url(url, storage_options=…)` with the same URL and options, in the same uses. What it
leaves is what was open after the block; where it fails, the message that came most often is given. It ran with the
first of these sets of versions:

{versions}

Cells that fail: {failing}.
"""


@dataclass(frozen=True)
class Row:
    """What came of every use of one backend.

    Attributes
    ----------
    managed : list of dict
        With this package: for each interpreter, use → outcome.
    plain : dict
        With plain zarr: use → outcome; empty if that was not run.
    """

    managed: list[Mapping[str, Any]]
    plain: Mapping[str, Any]

    def passed(self) -> list[str]:
        """For each interpreter: cells passed of cells run."""
        return [f"{sum(each.passed for each in uses.values())} of {len(uses)}" for uses in self.managed]


def _table(rows: Mapping[str, Row], versions: Sequence[Mapping[str, str]]) -> list[list[str]]:
    head = ["backend", *(f"Python {each['Python']}, zarr {each['zarr']}" for each in versions), "plain zarr"]
    return [head, *([variant, *row.passed(), plain_summary(row.plain)] for variant, row in rows.items())]


def printed(rows: Mapping[str, Row], versions: Sequence[Mapping[str, str]]) -> str:
    """The table for a terminal."""
    table = _table(rows, versions)
    widths = [*(max(map(len, column)) for column in list(zip(*table, strict=True))[:-1]), 0]
    return "\n".join("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)) for row in table)


def backends_page(rows: Mapping[str, Row], versions: Sequence[Mapping[str, str]]) -> str:
    """The table as a page."""
    head, *body = _table(rows, versions)
    lines = [head, ["---"] * len(head), *([_as_markdown(text) for text in row] for row in body)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    found = "\n".join("- " + ", ".join(f"{name} {version}" for name, version in each.items()) for each in versions)
    return _HEAD + table + _FOOT.format(versions=found, failing="; ".join(_failing(rows)) or "none")


def _as_markdown(text: str) -> str:
    return text.replace("|", "/").replace("__", "\\_\\_")


def _failing(rows: Mapping[str, Row]) -> list[str]:
    return list(
        dict.fromkeys(
            f"{variant} in {use}"
            for variant, row in rows.items()
            for uses in row.managed
            for use, outcome in uses.items()
            if not outcome.passed
        )
    )


def plain_summary(plain: Mapping[str, Any]) -> str:
    """What plain zarr does on one backend, in a line."""
    if not plain:
        return "not run"
    errors = Counter(general(each.error) for each in plain.values() if each.error is not None)
    left: dict[str, int] = {}
    for each in plain.values():
        for name, count in (each.grown or {}).items():
            if each.error is None:
                left[name] = max(left.get(name, 0), count)
    name = next((name for name in ("sockets", "threads", "tasks", "temporary", "descriptors") if left.get(name)), None)
    leaking = sum(
        each.error is None and any(count > 0 for count in (each.grown or {}).values()) for each in plain.values()
    )
    noisy = sum(each.error is None and bool(each.stderr) for each in plain.values())
    parts = []
    if name is not None:
        unit = {"temporary": "temporary files"}.get(name, name)
        unit = unit.removesuffix("s") if left[name] == 1 else unit
        parts.append(f"leaks {left[name]} {unit} ({_uses(leaking)})")
    if errors:
        failing = sum(errors.values())
        beyond_never = sum(each.error is None for use, each in plain.items() if use != "never")
        verb = "fails" if beyond_never else "does not open"
        parts.append(f"{verb}: {errors.most_common(1)[0][0]} ({_uses(failing)})")
    if noisy:
        parts.append(f"writes to stderr ({_uses(noisy)})")
    return "; ".join(parts) or "fine"


def _uses(count: int) -> str:
    return "1 use" if count == 1 else f"{count} uses"


def general(error: str) -> str:
    """An error in one short line without what is particular to this machine or run."""
    text = _PARTICULARS.sub("…", " ".join(error.split())).replace("|", "/")
    return text if len(text) <= 90 else f"{text[:89]}…"


def versions_with(python: str) -> dict[str, str]:
    """The versions that an interpreter has installed."""
    program = "import json; from tests.matrix_table import versions; print(json.dumps(versions()))"
    root = Path(__file__).parent.parent
    answer = subprocess.run([python, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def versions() -> dict[str, str]:
    """The versions that this interpreter has installed."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found
