"""The leak matrix as a table: a row for each backend."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["backends_page", "plain_summary", "printed"]

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

"""

_FOOT = """
Plain zarr is `FsspecStore.from_url(url, storage_options=…)` with the same URL and options, in the same uses. What it
leaves is what was open after the block; where it fails, the message that came most often is given.

Versions: {versions}.
"""


def rows(outcomes: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """For each backend: its name, cells passed of cells run, and what plain zarr does."""
    return [
        (variant, f"{sum(each.passed for each in managed.values())} of {len(managed)}", plain_summary(plain))
        for variant, (managed, plain) in outcomes.items()
    ]


def printed(outcomes: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    table = [("backend", "passed", "plain zarr"), *rows(outcomes)]
    first, second = (max(len(row[column]) for row in table) for column in (0, 1))
    return "\n".join(f"{row[0]:{first}}  {row[1]:{second}}  {row[2]}" for row in table)


def backends_page(outcomes: Mapping[str, Any]) -> str:
    """The table as a page."""
    lines = ["| backend | cells passed | plain zarr |", "|---|---|---|"]
    lines += [f"| {variant} | {passed} | {plain.replace('|', '/')} |" for variant, passed, plain in rows(outcomes)]
    return _HEAD + "\n".join(lines) + "\n" + _FOOT.format(versions=_versions())


def plain_summary(plain: Mapping[str, Any]) -> str:
    """What plain zarr does on one backend, in a line."""
    if not plain:
        return "not run"
    errors = Counter(_general(each.error) for each in plain.values() if each.error is not None)
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
        parts.append(f"leaks {left[name]} {unit} ({leaking} uses)")
    if errors:
        failing = sum(errors.values())
        beyond_never = sum(each.error is None for use, each in plain.items() if use != "never")
        verb = "fails" if beyond_never else "does not open"
        parts.append(f"{verb}: {errors.most_common(1)[0][0]} ({failing} uses)")
    if noisy:
        parts.append(f"writes to stderr ({noisy} uses)")
    return "; ".join(parts) or "fine"


def _general(error: str) -> str:
    """An error in one short line without what is particular to this machine or run."""
    text = _PARTICULARS.sub("…", " ".join(error.split())).replace("|", "/")
    return text if len(text) <= 90 else f"{text[:89]}…"


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(found)
