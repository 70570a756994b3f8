"""``managed-store demo``: what zarr alone leaves open, and a managed store does not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from managed_store._commands._parsers import Parsers

__all__ = ["add_parser"]


def add_parser(commands: Parsers) -> None:
    """Add the parser of ``demo``."""
    parser = commands.add_parser(
        "demo", help="show what zarr alone leaves open and a managed store does not; needs no network and no account"
    )
    parser.set_defaults(run=run)


def run(_parsed: argparse.Namespace) -> int:
    """Run the demonstration. It never fails but by an exception."""
    from managed_store._demo import demo

    return demo()
