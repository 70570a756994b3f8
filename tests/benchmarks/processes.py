"""Whole processes: opening a group, counting its members and reading an array; and importing the package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks._measuring import Effort, Line, Measure, compare, environment, timed
from tests.hierarchy import write_hierarchy
from tests.servers import http_server

__all__ = ["lines", "planned"]

PLAIN = """
import zarr
group = zarr.open_group("{url}", mode="r")
print(len(group.members()), group["numbers"][...].sum())
"""

MANAGED = """
import zarr
from managed_store import ManagedStore
with ManagedStore("{url}") as store:
    group = zarr.open_group(store, mode="r")
    print(len(group.members()), group["numbers"][...].sum())
"""

IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def planned(effort: Effort) -> int:
    """Return how many lines there will be."""
    return 2


def lines(effort: Effort) -> Iterator[Line]:
    """Measure them."""
    with http_server() as server:
        write_hierarchy(str(server.root / "data.zarr"))
        url = f"{server.url}/data.zarr"
        yield compare(
            "processes",
            "open, list, read and end",
            {"managed": timed(lambda: output(MANAGED, url)), "plain zarr": timed(lambda: output(PLAIN, url))},
            effort=effort,
            target=1.0,
        )
    base = "import zarr, fsspec"
    yield compare(
        "processes",
        "import managed_store's store",
        {"managed": importing(f"{base}; from managed_store import ManagedStore"), base: importing(base)},
        effort=effort,
    )


def output(program: str, url: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program.format(url=url)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout


def importing(statement: str) -> Measure:
    return lambda: float(output(IMPORT.format(statement), ""))
