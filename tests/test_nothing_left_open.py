"""Closed means closed: after leaving, the process holds exactly what it held before, on every backend and in every use.

Each cell is a fresh process under ``-X dev -W error`` with the garbage collector off. The control runs plain zarr the
same way: were the servers or the counting at fault, it would not leak.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import zarr

from managed_store import ManagedStore
from tests.cell import USES
from tests.conftest import BACKENDS, Place, place_of

NOTHING = {"sockets": 0, "descriptors": 0, "threads": 0, "tasks": 0}

# gcsfs registers its extended filesystem unless it is told not to; both are used.
VARIANTS = (*BACKENDS, "gs-core")

# asyncio notes slow callbacks in debug mode; building an S3 client on the loop is one.
SLOW_CALLBACK = re.compile(r"^Executing <(Task|Handle|TimerHandle) .* took \d+\.\d+ seconds$")

# In plain zarr these uses leave nothing behind: nothing is opened, or the loop that is closed takes it along.
NO_LEAK_IN_PLAIN_ZARR = {"never"}

# Uses that plain zarr cannot do at all: the loop that its session was born on is closed, or is not the running one.
FAILS_IN_PLAIN_ZARR = {"run_twice", "sync_then_async", "async_then_sync", "mixed", "threads", "dropped_loop"}


@functools.cache
def run_cell(
    url: str, options: str, environment: tuple[tuple[str, str], ...], uses: tuple[str, ...], plain: bool
) -> Any:
    """Run one program of the matrix, once; returns its report, exit code and stderr."""
    config = {"url": url, "options": json.loads(options), "uses": uses, "plain": plain}
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.cell", json.dumps(config)],
        env={**os.environ, **dict(environment), "GRPC_VERBOSITY": "NONE"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return json.loads(result.stdout.splitlines()[-1] if result.stdout else "{}"), result.returncode, result.stderr


def cell(variant: str, uses: tuple[str, ...], request: pytest.FixtureRequest, *, by_name: bool, plain: bool) -> Any:
    """The report of the cell in which these uses are made of the hierarchy on a backend."""
    place: Place = place_of(variant.removesuffix("-core"), request, by_name=by_name)
    extended = "false" if variant == "gs-core" else "true"
    environment = {**place.environment, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": extended}
    return run_cell(place.url, json.dumps(place.options), tuple(sorted(environment.items())), uses, plain)


def unexpected_lines(stderr: str) -> list[str]:
    """What a program wrote to stderr, but for slow callbacks and gcsfs's note that the server speaks no gRPC."""
    return [
        line
        for line in stderr.splitlines()
        if not SLOW_CALLBACK.match(line) and not line.startswith("Could not determine bucket type")
    ]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("by_name", [False, True], ids=["by-address", "by-name"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_leaving_a_managed_store_leaves_nothing(
    variant: str, by_name: bool, use: str, request: pytest.FixtureRequest
) -> None:
    """No socket, descriptor, thread or task stays, the data was right, and stderr is silent."""
    report, returncode, stderr = cell(variant, tuple(USES), request, by_name=by_name, plain=False)
    assert report.get(use) == NOTHING, stderr
    assert unexpected_lines(stderr) == []
    assert returncode == 0


@pytest.mark.parametrize("use", sorted(set(USES) - FAILS_IN_PLAIN_ZARR - NO_LEAK_IN_PLAIN_ZARR - {"uvloop"}))
@pytest.mark.parametrize("variant", VARIANTS)
def test_control_plain_zarr_leaks(variant: str, use: str, request: pytest.FixtureRequest) -> None:
    """The same program with plain zarr leaves sockets open, so the test above can fail."""
    report, _, stderr = cell(variant, (use,), request, by_name=False, plain=True)
    assert report[use].get("sockets", 0) > 0, (report, stderr)


@pytest.mark.parametrize("use", sorted(FAILS_IN_PLAIN_ZARR - {"threads"}))
@pytest.mark.parametrize("variant", VARIANTS)
def test_control_plain_zarr_fails_or_leaks(variant: str, use: str, request: pytest.FixtureRequest) -> None:
    """What spans two loops fails with plain zarr, or leaks where the backend heals itself."""
    report, _, stderr = cell(variant, (use,), request, by_name=False, plain=True)
    assert "error" in report[use] or report[use]["sockets"] > 0, (report, stderr)


@pytest.mark.parametrize("backend", BACKENDS)
def test_servers_keep_connections_alive(backend: str, place: Place, request: pytest.FixtureRequest) -> None:
    """The servers see the connections of a store that is open, so there are pooled sockets to be counted."""
    server = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
    before = server.connections()
    with ManagedStore(place.url, storage_options=place.options) as store:
        zarr.open_group(store, mode="r")
        assert server.connections() > before
    assert server.wait_for_connections(before) == before
