"""``managed-store info``: the members, shapes, dtypes and chunks of a hierarchy."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from managed_store._commands._parsers import Parsers

__all__ = ["add_parser"]

# What means the same in Python, as it is written in JSON.
_IN_JSON = {"True": "true", "False": "false", "None": "null"}


def add_parser(commands: Parsers) -> None:
    """Add the parser of ``info``."""
    parser = commands.add_parser("info", help="print the members, shapes, dtypes and chunks of a hierarchy")
    parser.add_argument("url", metavar="URL", help="any URL that fsspec opens, or a local path")
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_option,
        help="a storage option; VALUE is read as JSON if it is JSON, or True, False or None, else as text "
        "(that of a number in quotes: KEY='\"1\"'); may be given several times",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print what is there; 1 if the store could not be read."""
    from managed_store._info import info

    try:
        lines = info(parsed.url, dict(parsed.option))
    except Exception as error:  # whatever a backend raises: a person reads this, not a program
        from managed_store._redaction import redacted

        print(f"managed-store: {redacted(parsed.url)}: {_told(error)}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"must look like KEY=VALUE, such as anon=true; got {name!r}")
    try:
        return name, json.loads(_IN_JSON.get(value, value))
    except json.JSONDecodeError:
        return name, value


def _told(error: Exception) -> str:
    """What went wrong, in one line.

    What others say of their errors may hold secrets in any spelling; of those the kind is told, and no more.
    """
    from managed_store.errors import ManagedStoreError

    if not isinstance(error, ManagedStoreError):
        return f"{_kind_of(error)}. Its text is left out, as it may hold secrets: open the store in Python to see it."
    cause = "" if error.__cause__ is None else f" ({_kind_of(error.__cause__)})"
    return " ".join(f"{error}{cause}".split())


def _kind_of(error: BaseException) -> str:
    from managed_store._wrapped._ranges import status_of

    status, number = status_of(error), getattr(error, "errno", None)
    if status is not None:
        return f"{type(error).__name__}, HTTP status {status}"
    if isinstance(number, int) and number > 0:  # those of name look-ups are below 0
        return f"{type(error).__name__}, {os.strerror(number)}"
    return type(error).__name__
