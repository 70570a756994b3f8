"""The command ``managed-store``. Its subcommands are in `managed_store._commands`, one a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from managed_store import __version__
from managed_store._commands import COMMANDS

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
        The exit code: 0 if all went well, 1 if it did not, 2 for a wrong call.
    """
    parsed = _parser().parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="managed-store", description="Open remote zarr stores, and close what they opened."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
