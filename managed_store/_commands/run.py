"""``managed-store run``: any program, and what it leaves open."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from managed_store._commands._parsers import Parsers

__all__ = ["LEFT_OPEN", "add_parser"]

# The exit code of ``--fail`` for a program that ended well, but left something open.
LEFT_OPEN = 3

_HELP = "run a program and tell what it leaves open, and where that was opened"

_WITH_VALUE = ("--json", "--sample")


def add_parser(commands: Parsers) -> None:
    """Add the parser of ``run``. What follows the program's name is the program's, also what looks like an option."""
    # No argument is an option to this parser, whatever it begins with.
    parser = commands.add_parser("run", help=_HELP, add_help=False, prefix_chars="\0")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the program, tell what it left open on stderr, and return its exit code.

    It is looked at when main has ended and the threads that are no daemons have been joined, before any exit hook runs:
    those would close some of it at the last moment.
    """
    own, program, arguments = _split(parsed.arguments)
    options = _parser().parse_args([*own, *program])
    from managed_store import _running
    from managed_store._sampling import Sampler, plot
    from managed_store.testing._detectors.sockets import connections
    from managed_store.testing._leak_check import leak_check

    with ExitStack() as stack:
        try:
            found = (
                _running.script_program(options.script)
                if options.module is None
                else _running.module_program(options.module)
            )
        except _running.ProgramError as error:
            print(f"managed-store run: {error}", file=sys.stderr)
            return error.code
        file = None if options.json is None else stack.enter_context(_opened(options.json))
        sampler = None if options.sample is None else Sampler(connections, options.sample)
        if sampler is not None:
            sampler.start()
        with leak_check(on_leak="report") as check:
            ended = _running.run(found, arguments)
            _running.wait_for_threads()
        samples = [] if sampler is None else sampler.stop()
        code = LEFT_OPEN if options.fail and check.report and ended.code == 0 else ended.code
        if file is not None:
            _write(file, {"exit_code": ended.code, **check.report.as_dict(), "samples": samples})
        text = f"managed-store: {check.report}"
        _say(text if sampler is None else f"{text}\n\n{plot(samples, name='open connections')}")
    if ended.interrupted:
        sys.excepthook = lambda *_: None  # it has been told of
        raise KeyboardInterrupt
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="managed-store run",
        usage="%(prog)s [--fail] [--json FILE] [--sample SECONDS] (SCRIPT | -m MODULE) [ARGUMENTS ...]",
        description="Run a program and tell, on stderr, what it leaves open when main has ended and its threads have "
        "been joined, and where that was opened. The exit code is the program's.",
    )
    parser.add_argument(
        "--fail",
        action="store_true",
        help=f"exit with {LEFT_OPEN} if the program ends with 0 and has left something open",
    )
    parser.add_argument("--json", metavar="FILE", help="write the report to FILE too, as JSON")
    parser.add_argument(
        "--sample", metavar="SECONDS", type=_interval, help="count the open connections every SECONDS, and plot them"
    )
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("-m", metavar="MODULE", dest="module", help="run a module, as python -m does")
    program.add_argument(
        "script", metavar="SCRIPT", nargs="?", help="a script, or a folder or archive with __main__.py"
    )
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Tell the options of the command from the program, and from what is the program's."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and not arguments[at].startswith("-m"):
        if arguments[at] == "--":
            return [*arguments[:at]], ["--", *arguments[at + 1 : at + 2]], [*arguments[at + 2 :]]
        at += 2 if arguments[at] in _WITH_VALUE else 1
    of_program = 2 if at < len(arguments) and arguments[at] == "-m" else 1
    return [*arguments[:at]], [*arguments[at : at + of_program]], [*arguments[at + of_program :]]


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0.001):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0.001 or more; got {text!r}")
    return seconds


def _opened(path: str) -> TextIO:
    """Open the file of ``--json`` before the program runs: better no run than one without its report.

    What it holds is kept until there is a report.
    """
    if path.endswith((".py", ".pyz")):  # a call that forgets FILE would put its report into the program
        print(f"managed-store run: --json takes the FILE to write to; got {path}, a program", file=sys.stderr)
        raise SystemExit(2)
    try:
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        print(f"managed-store run: cannot write --json {path}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def _write(file: TextIO, data: dict[str, Any]) -> None:
    if file.seekable():  # not a pipe
        file.truncate(0)
    json.dump(data, file, indent=2)
    file.write("\n")


def _say(text: str) -> None:
    """Print on stderr, whatever its encoding."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)
