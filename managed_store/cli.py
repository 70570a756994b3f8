"""The command ``managed-store``: ``demo`` and ``info``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from managed_store import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the command's name. The default is that of the process.

    Returns
    -------
    int
        The exit code: 0 if all went well, 1 if the store could not be read, 2 for a wrong call.
    """
    parsed = _parser().parse_args(arguments)
    if parsed.command == "demo":
        from managed_store._demo import demo

        return demo()
    from managed_store._info import info

    try:
        return info(parsed.url, dict(parsed.option))
    except Exception as error:  # whatever a backend raises: a person reads this, not a program
        from managed_store._redaction import redacted

        print(f"managed-store: {redacted(parsed.url)}: {_told(error, parsed)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="managed-store", description="Open remote zarr stores, and close what they opened."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "demo", help="show what zarr alone leaves open and a managed store does not; needs no network and no account"
    )
    info = commands.add_parser("info", help="print the members, shapes, dtypes and chunks of a hierarchy")
    info.add_argument("url", metavar="URL", help="any URL that fsspec opens, or a local path")
    info.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_option,
        help="a storage option; VALUE is read as JSON if it is JSON, else as text; may be given several times",
    )
    return parser


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"must look like KEY=VALUE, such as anon=true; got {name!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _told(error: Exception, parsed: argparse.Namespace) -> str:
    """What went wrong, in one line, without the values of the options and the URL's secrets."""
    from managed_store._redaction import redacted

    cause = "" if error.__cause__ is None else f" ({type(error.__cause__).__name__}: {error.__cause__})"
    text = f"{type(error).__name__}: {error}{cause}".replace(parsed.url, redacted(parsed.url))
    for _, value in parsed.option:
        if isinstance(value, str) and value:
            text = text.replace(value, "***")
    return " ".join(text.split())
