"""Every example in the README, the docs and the docstrings is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import managed_store

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(managed_store.__path__, "managed_store.")
    if not module.name.endswith("__main__")
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_blocks_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, in one namespace, as a reader would."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), namespace)


def test_pages_have_blocks() -> None:
    """The pattern finds the blocks: the README has two."""
    assert len(BLOCK.findall((ROOT / "README.md").read_text())) == 2


@pytest.mark.parametrize("name", ["managed_store", *MODULES])
def test_doctests(name: str) -> None:
    """The examples in docstrings give what they say."""
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.failed == 0


def test_there_are_doctests() -> None:
    """The main class has an example that is run."""
    finder = doctest.DocTestFinder()
    assert any(test.examples for test in finder.find(managed_store.ManagedStore))


def test_local_links_of_the_pages_lead_somewhere() -> None:
    """A link to a file of the repository names one that exists."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
