"""``managed-store doctor``: whether this installation is sound."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from managed_store._commands._parsers import Parsers

__all__ = ["add_parser"]


def add_parser(commands: Parsers) -> None:
    """Add the parser of ``doctor``."""
    parser = commands.add_parser(
        "doctor", help="say what is known of the installed versions, look at the event loops, and try every backend"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-self-test", action="store_true", help="do not try the backends")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Examine; 1 if anything is not sound."""
    from managed_store._doctor import doctor

    return doctor(as_json=parsed.json, with_self_test=not parsed.no_self_test)
