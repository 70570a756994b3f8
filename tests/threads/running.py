"""Run the forms of programs at a place on a real server."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.matrix import Outcome, without_noise
from tests.places import Place
from tests.threads import programs
from tests.threads.symptoms import Symptom

__all__ = ["PROGRAMS", "forms_of", "plain_symptoms", "run_programs"]

PROGRAMS = tuple(sorted(module.name for module in pkgutil.iter_modules(programs.__path__)))


def plain_symptoms(program: str) -> dict[str, Symptom]:
    """What the plain form of a program shows, for each backend on which it is run."""
    found: dict[str, Symptom] = importlib.import_module(f"tests.threads.programs.{program}").PLAIN
    return found


def forms_of(program: str, backend: str) -> list[str]:
    """The forms to run: the plain one is watched by a leak check where it leaves something for that to catch."""
    return ["plain", *(["watched"] if plain_symptoms(program)[backend].leaves else []), "managed"]


def run_programs(
    forms: Mapping[str, Sequence[str]], place: Place, *, python: str = sys.executable
) -> dict[str, dict[str, Outcome]]:
    """Run forms of programs, each in a process of its own, in development mode.

    Parameters
    ----------
    forms : mapping
        The name of a file in ``tests/threads/programs`` → what to run of it: see `tests.threads.process`.
    place : Place
        Where the hierarchy is.
    python : str
        The interpreter.

    Returns
    -------
    dict
        For each program and form what came of it.
    """
    config = {"forms": {**forms}, "url": place.url, "options": place.options}
    with tempfile.TemporaryDirectory(prefix="threads-") as folder:
        settings = {"TMPDIR": folder, "OPENBLAS_NUM_THREADS": "1"}
        result = subprocess.run(
            [python, "-X", "dev", "-m", "tests.threads.process", repr(config)],
            env={**os.environ, **place.environment, **settings},
            cwd=Path(__file__).parent.parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=70 * sum(map(len, forms.values())),
        )
    if result.returncode or not result.stdout:
        raise RuntimeError(f"the programs could not be run ({result.returncode}):\n{result.stderr}")
    report = json.loads(result.stdout.splitlines()[-1])
    return {
        name: {
            form: Outcome(**{**outcome, "stderr": without_noise(outcome["stderr"])})
            for form, outcome in outcomes.items()
        }
        for name, outcomes in report.items()
    }
