"""The type of what argparse adds the parsers of commands to, which has no public name."""

from __future__ import annotations

import argparse
from typing import Protocol

__all__ = ["Parsers"]


class Parsers(Protocol):
    """What ``ArgumentParser.add_subparsers`` returns."""

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002
        add_help: bool = True,
        prefix_chars: str = "-",
    ) -> argparse.ArgumentParser:
        """Add the parser of one command."""
