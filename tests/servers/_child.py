"""The server's side of `_process.py`: announce where we listen, then serve until the parent is gone."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn

Config = dict[str, Any]
Announcement = dict[str, Any]


def folder_to_serve(config: Config, cleanup: ExitStack) -> str:
    """Return the configured `root`, or else a temporary folder: made here, it goes also if the parent is killed."""
    root: str = config["root"] or cleanup.enter_context(tempfile.TemporaryDirectory(prefix="served-"))
    return root


def run_child(serve: Callable[[Config, ExitStack], Announcement]) -> NoReturn:
    """Call `serve` with the configuration; it must return while its daemon threads go on serving.

    What it pushes on the stack is undone at the end, also when the parent was killed.
    """
    with ExitStack() as cleanup:
        announcement = serve(json.loads(sys.argv[1]), cleanup)
        print(json.dumps(announcement), flush=True)
        # The parent reads that one line only; a later print must not fail on its closed pipe.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        sys.stdin.buffer.read()
    # Daemon threads are still serving. None of them holds anything that needs an orderly end.
    os._exit(0)
