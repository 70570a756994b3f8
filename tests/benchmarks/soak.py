"""Opening, reading and closing stores thousands of times: what the process gains by it, beside plain zarr.

``python -m tests.benchmarks.soak [--backend http] [--cycles 20000] [--plain-cycles 300] [--json FILE]``

Every cycle has options of its own, as with rotating credentials, so that plain zarr cannot take a cached filesystem.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.footprint import Footprint
from tests.hierarchy import write_hierarchy
from tests.servers import gcs_server, http_server, s3_server

HELD = ("descriptors", "threads", "tasks", "blocks", "MiB")
SAMPLES = 200
WARM_UP = 0.2  # the part of the cycles that is not looked at: imports, caches, the allocator's arenas


@contextmanager
def place(backend: str) -> Any:
    """Give the URL of a hierarchy on a server, and the options that go with it."""
    with ExitStack() as stack:
        if backend == "http":
            http = stack.enter_context(http_server())
            write_hierarchy(str(http.root / "data.zarr"))
            yield f"{http.url}/data.zarr", {}
            return
        server: Any = stack.enter_context({"gs": gcs_server, "s3": s3_server}[backend]())
        server.create_bucket("bucket")
        url = f"{backend}://bucket/data.zarr"
        with ManagedStore(url, storage_options=server.storage_options) as store:
            write_hierarchy(store)
        yield url, server.storage_options


def options_of(backend: str, options: dict[str, Any], cycle: int) -> dict[str, Any]:
    """Options like no other cycle's."""
    own: dict[str, Any] = {"http": {"headers": {"X-Cycle": str(cycle)}}, "gs": {"project": f"project-{cycle}"},
                           "s3": {"key": f"testing{cycle}"}}[backend]  # fmt: skip
    return {**options, **own}


def managed(url: str, options: dict[str, Any]) -> None:
    with ManagedStore(url, storage_options=options) as store:
        zarr.open_group(store, mode="r")["numbers"][:2]


def plain(url: str, options: dict[str, Any]) -> None:
    store = FsspecStore.from_url(url, storage_options=options, read_only=True)
    zarr.open_group(store, mode="r")["numbers"][:2]
    store.close()


def measured(backend: str, kind: str, url: str, options: dict[str, Any], cycles: int) -> dict[str, list[float]]:
    """Run the cycles in this process; give what it held at every sample."""
    run = {"managed": managed, "plain": plain}[kind]
    process = psutil.Process()
    every = max(1, cycles // SAMPLES)
    samples = np.zeros((-(-cycles // every), len(HELD) + 1))  # made beforehand: it must not be what grows
    sync(asyncio.sleep(0))
    started = time.monotonic()
    for cycle in range(cycles):
        run(url, options_of(backend, options, cycle))
        if cycle % every == 0:
            gc.collect()
            held = Footprint.now()
            blocks, memory = sys.getallocatedblocks(), process.memory_info().rss / 2**20
            samples[cycle // every] = cycle, held.descriptors, held.threads, held.tasks, blocks, memory
    named = dict(zip(("cycle", *HELD), samples.T.tolist(), strict=True))
    return {**named, "seconds": [time.monotonic() - started]}


@dataclass(frozen=True)
class Slope:
    """What a process gains in a thousand cycles, after it has warmed up."""

    per_thousand: float
    error: float
    """Of that: twice its standard error."""

    @classmethod
    def of(cls, cycles: list[float], values: list[float]) -> Slope:
        first = int(len(cycles) * WARM_UP)
        x, y = np.array(cycles[first:]) / 1000, np.array(values[first:])
        deviations = x - x.mean()
        slope = float(deviations @ y / (deviations @ deviations))
        residuals = y - y.mean() - slope * deviations
        error = np.sqrt(residuals @ residuals / (len(x) - 2) / (deviations @ deviations))
        return cls(slope, 2 * float(error))

    def __str__(self) -> str:
        return f"{self.per_thousand:+.3f} ± {self.error:.3f}"


def in_a_process(backend: str, kind: str, url: str, options: dict[str, Any], cycles: int) -> dict[str, Any]:
    """Run the cycles in a fresh process, and take the slopes."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.soak", "--here", repr((backend, kind, url, options, cycles))],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # gcsfs says of each bucket that the server speaks no gRPC
        text=True,
        check=True,
    )
    samples = json.loads(result.stdout.splitlines()[-1])
    slopes = {name: Slope.of(samples["cycle"], samples[name]) for name in HELD}
    line = ", ".join(f"{name} {slope}" for name, slope in slopes.items())
    print(f"{backend}, {kind}, {cycles} cycles in {samples['seconds'][0]:.0f} s; per 1,000 cycles: {line}", flush=True)
    return {"backend": backend, "kind": kind, "cycles": cycles, **{name: asdict(each) for name, each in slopes.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=["http", "gs", "s3"])
    parser.add_argument("--cycles", type=int, default=20_000)
    parser.add_argument("--plain-cycles", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        warnings.simplefilter("ignore")  # what plain zarr leaves is counted, not read
        samples = measured(*eval(arguments.here))
        sys.stdout.write(f"{json.dumps(samples)}\n")
        sys.stdout.flush()
        os._exit(0)  # nothing that is left open may keep the process
    results = []
    for backend in arguments.backend or ["http", "gs", "s3"]:
        with place(backend) as (url, options):
            for kind, cycles in (("managed", arguments.cycles), ("plain", arguments.plain_cycles)):
                if cycles:
                    results.append(in_a_process(backend, kind, url, options, cycles))
    if arguments.json:
        arguments.json.write_text(f"{json.dumps(results, indent=1)}\n")


if __name__ == "__main__":
    main()
