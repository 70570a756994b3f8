"""The subcommands of ``managed-store``, one a file: what it is called with, and what is run.

Each file has a function `add_parser`, which adds the parser of its command and leaves in it, as ``run``, the function
that takes the parsed arguments and returns the exit code. What a command does is imported when it is run, so that
``--help`` stays quick.
"""

from __future__ import annotations

from managed_store._commands import demo, doctor, info, run

__all__ = ["COMMANDS"]

# In the order of ``--help``.
COMMANDS = (demo, info, doctor, run)
