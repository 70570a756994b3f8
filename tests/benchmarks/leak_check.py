"""What the check costs: suites of many small tests under pytest, with ``--fail-on-leaks`` against without.

Tests that do nothing at all; tests that do a little of what small tests of asynchronous code do, an event loop with
some tasks, a file, a connection to a server in this process; and small ones of this project. Every run is a pytest of
its own; what it takes until the first test begins is not counted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks._measuring import Effort, Line, compare, environment

__all__ = ["lines", "planned"]

# From how many generated tests on this project's own are worth their time.
_MANY = 100

OWN = [
    Path(__file__).parent.parent / f"test_{name}.py"
    for name in ("architecture", "bad_input", "chained_urls", "recipe", "redaction", "store_interface")
]

NOTHING = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_nothing(number):
    pass
"""

LITTLE = """
import asyncio, json, pytest, tempfile

async def answer(reader, writer):
    writer.write(await reader.readline())
    writer.close()

async def talk():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        assert await reader.read() == b"hello\\n"
        writer.close()
        await writer.wait_closed()
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(5)))

@pytest.mark.parametrize("number", range({tests}))
def test_a_little(number):
    with tempfile.TemporaryFile("w") as file:  # pytest's tmp_path takes longer, the more there are of them
        json.dump(list(range(100)), file)
    asyncio.run(talk())
"""


def seconds(folder: Path, files: list[Path], *arguments: str) -> float:
    """The processor time of pytest's process from the first test on: other load does not count."""
    options = [f"-pno:{name}" for name in ("zarr", "hypothesispytest", "cacheprovider", "xdist", "randomly")]
    # Hypothesis reads the source of every module that is imported from a checkout: so that there are as many in both.
    options.append("-pmanaged_store.testing._guard")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "-p", "_clock", *arguments, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        cwd=files[0].parent,
        env={**environment(), "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    found = re.search(r"the tests took (\S+) s", result.stdout)
    assert found is not None, result.stdout
    assert result.returncode == 0, result.stdout
    return float(found[1])


CLOCK = """
import time

def pytest_runtestloop(session):
    global began
    began = time.process_time()

def pytest_sessionfinish(session):
    print(f"\\nthe tests took {time.process_time() - began} s")
"""


def planned(effort: Effort) -> int:
    """Return how many lines there will be."""
    return 3 if effort.tests >= _MANY else 2


def lines(effort: Effort) -> Iterator[Line]:
    """Measure them."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "_clock.py").write_text(CLOCK)
        suites = {"small tests of this project": OWN} if effort.tests >= _MANY else {}
        for name, program in (("tests that do nothing", NOTHING), ("tests that do a little on event loops", LITTLE)):
            suite = Path(folder) / f"test_{len(suites)}.py"
            suite.write_text(program.replace("{tests}", str(effort.tests)))
            suites[f"{effort.tests} {name}"] = [suite]
        for name, files in suites.items():
            yield compare(
                "leak_check",
                name,
                {
                    "checked": partial(seconds, Path(folder), files, "--fail-on-leaks"),
                    "the same without": partial(seconds, Path(folder), files),
                },
                effort=effort,
                target=1.05,
            )
