"""``managed-store info``: the members, shapes, dtypes and chunks of a hierarchy."""

from __future__ import annotations

import argparse
import json
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
        return info(parsed.url, dict(parsed.option))
    except Exception as error:  # whatever a backend raises: a person reads this, not a program
        from managed_store._redaction import redacted

        print(f"managed-store: {redacted(parsed.url)}: {_told(error, parsed)}", file=sys.stderr)
        return 1


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"must look like KEY=VALUE, such as anon=true; got {name!r}")
    try:
        return name, json.loads(_IN_JSON.get(value, value))
    except json.JSONDecodeError:
        return name, value


def _told(error: Exception, parsed: argparse.Namespace) -> str:
    """What went wrong, in one line, without the values of the options and the URL's secrets."""
    from managed_store._redaction import redacted
    from managed_store.errors import ManagedStoreError

    cause = "" if error.__cause__ is None else f" ({type(error.__cause__).__name__}: {error.__cause__})"
    kind = "" if isinstance(error, ManagedStoreError) else f"{type(error).__name__}: "
    text = f"{kind}{error}{cause}".replace(parsed.url, redacted(parsed.url))
    for _, value in parsed.option:
        if isinstance(value, str) and value:
            text = text.replace(value, "***")
    return " ".join(text.split())
