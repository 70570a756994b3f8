"""The examples run as they are, from their own files: on their own data, and on that of a URL; nothing stays open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.servers import FolderServer, http_server
from tests.servers._process import REPOSITORY_ROOT

EXAMPLES = REPOSITORY_ROOT / "examples"

# Kernels and clusters take their time on a busy machine.
pytestmark = pytest.mark.timeout(400)

# Runs a notebook in a kernel of its own, and prints what its cells do; an error in a cell is one here.
NOTEBOOK = """
import nbclient, nbformat, sys
from traitlets.config import Config
notebook = nbformat.read(sys.argv[1], 4)
no_network = Config(KernelManager={"transport": "ipc"})
nbclient.NotebookClient(notebook, timeout=90, kernel_name="python3", config=no_network).execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("name", "result"), output.get("text") or output["data"]["text/plain"])
"""

# What dask's nanny says where processes end slowly, as on a busy machine.
NANNY = "Worker process still alive after"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    """A server of an array, which has been asked for it and sees no connection after the test."""
    data = np.full((6, 4), 21.5)
    with http_server(tmp_path) as server:
        zarr.create_array(tmp_path / "array.zarr", data=data, chunks=(2, 4), zarr_format=2)
        yield server
        assert server.requests() > 0
        assert server.wait_for_connections(0) == 0


def run(*command: str, **environment: str) -> str:
    """Run a program in the folder of the examples; it must end well and without a warning."""
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY_ROOT),
            "PYTHONWARNINGS": "error::ResourceWarning",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    errors = [line for line in ended.stderr.splitlines() if NANNY not in line]
    assert (ended.returncode, errors) == (0, []), ended.stdout + ended.stderr
    return ended.stdout


PROGRAMS = {
    "script.py": ("(48, 64, 64) float32, mean of the first step: -9.583", "-9.583 from 1 session"),
    "dask_cluster.py": ("mean of 12 chunks: 10.000", "opened 1 session"),
    "kerchunk_references.py": ("numbers: (1000,) float32, mean 499.500",),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_on_its_own_data(name: str) -> None:
    """No argument, no account."""
    said = run(name)
    for expected in PROGRAMS[name]:
        assert expected in said


def test_the_script_on_your_data(server: FolderServer) -> None:
    """The first argument is the URL of an array."""
    assert "mean of the first step: 21.500" in run("script.py", f"{server.url}/array.zarr")


def test_references_on_your_data(server: FolderServer) -> None:
    """The first argument is the URL of a table."""
    metadata = (server.root / "array.zarr/.zarray").read_text()
    references = {".zgroup": '{"zarr_format": 2}', "a/.zarray": metadata, "a/0.0": [f"{server.url}/array.zarr/0.0"]}
    (server.root / "table.json").write_text(json.dumps({"version": 1, "refs": references}))
    assert "a: (6, 4) float64" in run("kerchunk_references.py", f"{server.url}/table.json")


def test_the_pytest_fixture() -> None:
    """It passes under pytest as it is configured here, warnings being errors."""
    assert "3 passed" in run("-m", "pytest", "-p", "no:cacheprovider", "pytest_fixture.py", PYTEST_ADDOPTS="")


def test_the_notebook(server: FolderServer) -> None:
    """Every cell runs, in a kernel; none writes to stderr."""
    said = run("-c", NOTEBOOK, "notebook.ipynb")
    assert "mean -9.583" in said
    assert "opened=2, closed=2, forced=0" in said
    assert "stderr" not in said
    assert "mean 21.500" in run("-c", NOTEBOOK, "notebook.ipynb", ARRAY_URL=f"{server.url}/array.zarr")


def test_every_example_is_run() -> None:
    """Each file in the folder has its test: here, or in `test_service`."""
    names = {path.name for path in EXAMPLES.iterdir() if not path.name.startswith(("_", "."))}
    assert names == {*PROGRAMS, "pytest_fixture.py", "notebook.ipynb", "service.py"}
