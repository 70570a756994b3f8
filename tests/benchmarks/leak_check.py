"""What the check costs: a suite of many small tests under pytest, with ``--fail-on-leaks`` against without.

``python -m tests.benchmarks.leak_check [--tests 1000] [--pairs 10] [--json FILE]``

Two suites: tests that do nothing at all, and tests that do a little of what small tests of asynchronous code do, an
event loop with some tasks, a file, a connection to a server in this process. Every run is a pytest of its own, with
nothing of this package's tests; what it takes until the first test begins is not counted.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks._pairs import compare

NOTHING = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_nothing(number):
    pass
"""

LITTLE = """
import asyncio, json, pytest

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
def test_a_little(number, tmp_path):
    (tmp_path / "file").write_text(json.dumps(list(range(100))))
    asyncio.run(talk())
"""


def seconds(suite: Path, *arguments: str) -> float:
    """The processor time of pytest's process from the first test on: other load does not count."""
    options = [f"-pno:{name}" for name in ("zarr", "hypothesispytest", "cacheprovider", "xdist", "asyncio", "anyio")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "-p", "_clock", *arguments, str(suite)],
        capture_output=True,
        text=True,
        check=True,
        cwd=suite.parent,
    )
    found = re.search(r"the tests took (\S+) s", result.stdout)
    assert found is not None, result.stdout
    return float(found[1])


CLOCK = """
import time

def pytest_runtestloop(session):
    global began
    began = time.process_time()

def pytest_sessionfinish(session):
    print(f"\\nthe tests took {time.process_time() - began} s")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "_clock.py").write_text(CLOCK)
        for name, program in (("nothing", NOTHING), ("a little", LITTLE)):
            suite = Path(folder) / f"test_{name.replace(' ', '_')}.py"
            suite.write_text(program.replace("{tests}", str(arguments.tests)))
            result = compare(
                f"{arguments.tests} tests that do {name}, checked",
                lambda suite=suite: seconds(suite, "--fail-on-leaks"),
                lambda suite=suite: seconds(suite),
                pairs=arguments.pairs,
            )
            print(result, flush=True)
            lines.append(result.to_json())
    if arguments.json:
        arguments.json.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
