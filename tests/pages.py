"""The Python blocks of a page, run one after the other in one namespace, as a reader would.

``python -m tests.pages PAGE`` does so in a process of its own, whose environment can lead the page's URLs to a server
of the tests, and fails if a socket was left open.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

__all__ = ["blocks_of", "run_notebook", "run_page"]

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return _BLOCK.findall(page.read_text())


def run_page(page: Path) -> None:
    """Run them."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        exec(compile(block, str(page), "exec"), namespace)


async def run_notebook(page: Path) -> None:
    """Run them as the cells of a notebook: a loop is running all the time, and a cell may await."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        result = eval(compile(block, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
        if inspect.isawaitable(result):
            await result


if __name__ == "__main__":
    from tests.footprint import Footprint

    run_page(Path(sys.argv[1]))
    assert Footprint.now().sockets == 0, "the page leaves sockets open"
