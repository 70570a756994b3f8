"""Every example in the README, the docs and the docstrings is run."""

from __future__ import annotations

import argparse
import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import managed_store
import managed_store.errors
from managed_store._commands import COMMANDS
from tests.hierarchy import write_hierarchy
from tests.pages import blocks_of, run_notebook, run_page
from tests.servers import azure_server, gcs_server, http_server, s3_server
from tests.servers._clients import needs_azurite

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(managed_store.__path__, "managed_store.")
    if not module.name.endswith("__main__")
)


@pytest.fixture(autouse=True)
def _nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader begins with an empty ``memory://``, and leaves what other tests have put there as it was."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


# The pages whose URLs lead to a cloud, or to a host that there is not: variables of the environment lead them to a
# server of the tests, and nothing else does.


@contextmanager
def gcs_environment() -> Iterator[dict[str, str]]:
    """gcsfs's own variable; who asks, from fsspec's configuration; and no gRPC, which this server does not speak."""
    with gcs_server() as server:
        server.create_bucket("my-bucket")
        yield {
            "STORAGE_EMULATOR_HOST": server.url,
            "FSSPEC_GS": json.dumps({"token": "anon", "project": "p"}),
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }


@contextmanager
def s3_environment() -> Iterator[dict[str, str]]:
    """The variables that every client of AWS reads; the bucket is one that anybody may read."""
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::my-bucket/*"}
    with s3_server() as server:
        server.create_bucket("my-bucket")
        server.request("PUT", "/my-bucket?policy", json.dumps({"Statement": [public]}).encode())
        yield {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@contextmanager
def azure_environment() -> Iterator[dict[str, str]]:
    """The variable of adlfs, which comes before all options."""
    with azure_server() as server:
        server.create_bucket("my-container")
        yield {"AZURE_STORAGE_CONNECTION_STRING": server.connection_string}


@contextmanager
def http_environment() -> Iterator[dict[str, str]]:
    """A proxy, which answers for every host."""
    with http_server() as server:
        write_hierarchy(str(server.root / "weather.zarr"))
        yield {"HTTP_PROXY": server.url, "FSSPEC_HTTP": json.dumps({"client_kwargs": {"trust_env": True}})}


ENVIRONMENTS = {
    "gcs.md": gcs_environment,
    "s3.md": s3_environment,
    "azure.md": azure_environment,
    "http.md": http_environment,
}


# What is not run as a program would be.
NOTEBOOKS, SUITE = ROOT / "docs/notebooks.md", ROOT / "docs/pytest.md"

PROGRAMS = [page for page in PAGES if page.name not in ENVIRONMENTS and page not in (NOTEBOOKS, SUITE)]


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_blocks_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, in one namespace, as a reader would."""
    run_page(page)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_azurite if name == "azure.md" else ()) for name in ENVIRONMENTS]
)
def test_a_page_runs_as_on_the_real_cloud(name: str, tmp_path: Path) -> None:
    """Nothing is changed but the environment; it says nothing on stderr, and leaves no socket open."""
    with ENVIRONMENTS[name]() as environment:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.pages", str(ROOT / "docs" / name)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_the_page_about_notebooks_runs_as_one() -> None:
    """While a loop is running, as in a notebook; its cells await."""
    await run_notebook(NOTEBOOKS)


def test_the_page_about_pytest_is_a_suite(tmp_path: Path) -> None:
    """Its tests are found, and pass, with every warning an error."""
    suite = tmp_path / "test_page.py"
    suite.write_text("\n".join(blocks_of(SUITE)))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout
    assert "4 passed" in ended.stdout


def test_pages_have_blocks() -> None:
    """The pattern finds the blocks: the README has two."""
    assert len(blocks_of(ROOT / "README.md")) == 2


@pytest.mark.parametrize("name", ["managed_store", *MODULES])
def test_doctests(name: str) -> None:
    """The examples in docstrings give what they say."""
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.failed == 0


def test_there_are_doctests() -> None:
    """The main class has an example that is run."""
    finder = doctest.DocTestFinder()
    assert any(test.examples for test in finder.find(managed_store.ManagedStore))


def public_names() -> list[str]:
    """All that the public modules export."""
    modules = ["managed_store", *(name for name in MODULES if "._" not in name and name != "managed_store.cli")]
    return sorted({name for module in modules for name in getattr(importlib.import_module(module), "__all__", ())})


def test_every_public_name_is_in_the_reference() -> None:
    """By a directive for mkdocstrings, or as one of a module that has one, or at least by its name."""
    text = "\n".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    directives = re.findall(r"^::: (\S+)", text, re.MULTILINE)
    known = {directive.rpartition(".")[2] for directive in directives} | set(managed_store.errors.__all__)
    known |= set(re.findall(r"`(\w+)`", text))
    assert [name for name in public_names() if name not in known and not name.startswith("__")] == []
    assert "managed_store.errors" in directives


def test_every_subcommand_is_in_the_reference() -> None:
    """Each has its line in the table, and a line is that of a subcommand."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for command in COMMANDS:
        command.add_parser(commands)
    page = (ROOT / "docs/reference/command-line.md").read_text()
    assert list(commands.choices) == re.findall(r"^\| `managed-store (\w+)", page, re.MULTILINE)


def test_local_links_of_the_pages_lead_somewhere() -> None:
    """A link to a file of the repository names one that exists."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"(?:\]\(|href=\")(?!https?://|#)([^)\"#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_is_put_into_a_page_is_linked_in_its_source() -> None:
    """Whoever reads the Markdown files by themselves finds the way to the text that the site has in that place."""
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r'^--8<-- "([^":]+)', text, re.MULTILINE):
            assert re.search(rf'class="source-only".*href="(\.\./)+{re.escape(name)}[#"]', text), f"{page.name}: {name}"
        if re.search(r"^:::", text, re.MULTILINE):
            assert 'class="source-only"' in text, page.name


def test_tests_that_the_pages_name_exist() -> None:
    """A promise whose tests were renamed says so here."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"\btest_[a-z_]+\.py\b", page.read_text()):
            assert (ROOT / "tests" / name).exists(), f"{page.name}: {name}"
