"""The self-test: every installed backend is opened, read and closed on a server of its own, where one can be had."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from managed_store._doctor.servers import BACKENDS, Backend, Place, missing
from managed_store._doctor.trial import write_array

__all__ = ["Outcome", "Result", "self_test"]

Result: TypeAlias = Literal["clean", "leaked", "failed", "not tested", "not installed"]

# Seconds that one backend may take.
_LONGEST = 120.0

_SETTINGS = ("AWS_", "AZURE_", "BOTO_", "FSSPEC_", "GCSFS_", "GOOGLE_", "STORAGE_EMULATOR_HOST")

# What is written to stderr after the last line by what was not closed.
_SYMPTOM = re.compile(
    r"Unclosed [\w ]+|unclosed \w+|was never awaited|Task was destroyed but it is pending|"
    r"Traceback \(most recent call last\)"
)


@dataclass(frozen=True)
class Outcome:
    """What came of one backend.

    Attributes
    ----------
    backend : str
        Its protocol.
    result : str
        ``"clean"``, ``"leaked"`` (something was left open), ``"failed"`` (it could not be read, or hung), ``"not
        tested"`` or ``"not installed"``.
    detail : str
        What failed, or why it was not tested.
    seconds : float or None
        How long it took to write, read and close.
    left : tuple of str
        One line for each thing that was left open.
    """

    backend: str
    result: Result
    detail: str = ""
    seconds: float | None = None
    left: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with it, as far as is known."""
        return self.result not in ("leaked", "failed")


def self_test(backends: Iterable[Backend] = BACKENDS) -> list[Outcome]:
    """Try each backend, in a process of its own.

    Returns
    -------
    list of Outcome
        One for each backend.
    """
    with tempfile.TemporaryDirectory(prefix="managed-store-doctor-") as folder:
        write_array(str(Path(folder) / "array.zarr"))
        return [_tested(backend, Path(folder)) for backend in backends]


def _tested(backend: Backend, folder: Path) -> Outcome:
    if lacking := missing(backend.needs):
        return Outcome(backend.name, "not installed", f"needs {' and '.join(lacking)}")
    if backend.serve is None:
        return Outcome(backend.name, "not tested", "no server at hand")
    if lacking := missing(backend.server_needs):
        return Outcome(backend.name, "not tested", f"no server at hand: that needs {' and '.join(lacking)}")
    with ExitStack() as stack:
        try:
            place = stack.enter_context(backend.serve(folder))
        except Exception as error:  # the server's fault, which says nothing about the store
            return Outcome(backend.name, "not tested", f"its server does not start: {type(error).__name__}")
        return _tried(backend.name, place)


def _tried(name: str, place: Place) -> Outcome:
    given = {key: value for key, value in asdict(place).items() if key != "environment"}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "managed_store._doctor.trial"],
            input=json.dumps(given),
            env={**_without_settings(os.environ), **place.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, "failed", f"not back within {_LONGEST:.0f} s")
    report = _last_line(ended.stdout)
    # Of what is on stderr only what is known is told: the rest may hold whatever is in the environment.
    symptom = _SYMPTOM.search(ended.stderr)
    if report is None or ended.returncode:
        return Outcome(name, "failed", f"its process ended with exit code {ended.returncode} before its time")
    left = (*report["left"], *((f"on stderr: {symptom.group()}",) if symptom and not report["error"] else ()))
    result: Result = "failed" if report["error"] else "leaked" if left else "clean"
    return Outcome(name, result, report["error"] or "", report["seconds"], left)


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what the backends take from it: settings for other places, and credentials."""
    return {name: value for name, value in environment.items() if not name.startswith(_SETTINGS)}


def _last_line(stdout: str) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return report
