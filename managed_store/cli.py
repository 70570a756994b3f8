"""The command ``managed-store``. Its subcommands are in `managed_store._commands`, one a file."""

from __future__ import annotations

import argparse
import os
import sys
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
        The exit code: 0 if all went well, 1 if it did not, 2 for a wrong call, 130 after Ctrl-C.
    """
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output has seen enough: nothing more is written, at the exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        if parsed.command == "run":  # that is a matter of the program that is run
            raise
        return 130
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
