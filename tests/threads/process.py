"""Run the forms of programs, each in a process of its own, and report what each left open, raised and wrote.

``python -X dev -m tests.threads.process CONFIG`` takes a Python literal, as `tests.threads.running.run_programs` does
it. As `tests.cell`, it imports all that is needed, and then forks a process for each form. A form returns what the last
line of a script would still have in hand; that lives until the interpreter ends.

The forms are ``plain``, ``watched``, which is the plain one in a `leak_check`, and ``managed``, in a `leak_check` too.
"""

from __future__ import annotations

import ast
import asyncio
import faulthandler
import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec.asyn
from zarr.core.sync import sync

from managed_store.testing import leak_check
from tests.cell import footprint, import_backends
from tests.places import Place

# Seconds after which a form that hangs is ended, with the stacks of its threads on stderr.
_LONGEST = 60.0

in_hand: list[Any] = []


def main() -> None:
    """Run the forms; in a forked process, return to end it as any program ends."""
    config = ast.literal_eval(sys.argv[1])
    place = Place(config["url"], config["options"])
    import_backends(place.url, place.options)
    programs = {name: importlib.import_module(f"tests.threads.programs.{name}") for name in config["forms"]}
    report: dict[str, Any] = {}
    for name, program in programs.items():
        report[name] = {}
        for form in config["forms"][name]:
            folder = Path(tempfile.gettempdir()) / f"{name}-{form}"
            (folder / "temporary").mkdir(parents=True)
            process = os.fork()
            if process == 0:
                run_form(program, form, place, folder)
                return
            _, status = os.waitpid(process, 0)
            report[name][form] = outcome_in(folder, os.waitstatus_to_exitcode(status))
    print(json.dumps(report), flush=True)


def run_form(program: ModuleType, form: str, place: Place, folder: Path) -> None:
    """Run one form, with stderr and temporary files in `folder`; the report goes there too."""
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    faulthandler.dump_traceback_later(_LONGEST, exit=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "temporary")
    # In development mode asyncio says which callbacks were slow; on a busy machine, any.
    logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing"))
    # At exit zarr gives its thread 0.2 s to end; on a busy machine that may be too little.
    logging.getLogger("zarr.core.sync").addFilter(lambda record: "did not finish cleanly" not in str(record.msg))
    sync(asyncio.sleep(0))  # zarr's loop and its thread belong to zarr
    if getattr(program, "STARTS_FSSPEC_LOOP", False):
        # And fsspec's to fsspec. Not where no form starts it: gcsfs's finalizers do something else beside it.
        fsspec.asyn.get_loop()
    before = footprint()
    outcome: dict[str, Any] = {"error": None}
    try:
        with nullcontext() if form == "plain" else leak_check():
            in_hand.append(getattr(program, "managed" if form == "managed" else "plain")(place))
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    outcome["grown"] = before.grown_by(footprint())
    (folder / "report").write_text(json.dumps(outcome))


def outcome_in(folder: Path, code: int) -> dict[str, Any]:
    """What a form that has ended left in its folder."""
    stderr = (folder / "stderr").read_text()
    end = "not back in time" if "\nTimeout (" in f"\n{stderr}" else "the process ended before it could tell"
    report = folder / "report"
    outcome = json.loads(report.read_text()) if report.exists() else {"grown": None, "error": end}
    return {**outcome, "stderr": stderr, "code": code}


if __name__ == "__main__":
    main()
