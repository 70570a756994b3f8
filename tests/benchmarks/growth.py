"""Opening, reading and closing stores thousands of times: what the process gains by it, beside plain zarr."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import psutil
from zarr.core.sync import sync

from managed_store import ManagedStore, StorePool
from tests.benchmarks._measuring import Effort
from tests.benchmarks.opening import KINDS
from tests.footprint import Footprint
from tests.hierarchy import write_hierarchy
from tests.servers import gcs_server, http_server, s3_server

__all__ = ["BACKENDS", "Growth", "lines", "planned"]

BACKENDS = ("http", "gs", "s3")
HELD = ("descriptors", "threads", "tasks", "blocks", "MiB")
SAMPLES = 200
_ROUNDING = 1e-6  # of a slope that is nothing, and without error
# How many standard errors a 95 % confidence interval reaches, of the mean of so many (Student's t).
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18}
WARM_UP = 0.5  # the part of the cycles that is not looked at: caches, and the allocator's arenas

# What each cycle of a backend has alone, as with rotating credentials: plain zarr cannot take a cached filesystem.
_OWN: dict[str, Callable[[int], dict[str, Any]]] = {
    "http": lambda cycle: {"headers": {"X-Cycle": str(cycle)}},
    "gs": lambda cycle: {"project": f"project-{cycle}"},
    "s3": lambda cycle: {"key": f"testing{cycle}"},
}


@dataclass(frozen=True)
class Growth:
    """What a process gains in a thousand cycles, after it has warmed up.

    Attributes
    ----------
    benchmark, name : str
        What was done.
    cycles, seconds : int, float
        How many times, and how long it took.
    slopes : dict
        For each of what is held: the gain in a thousand cycles, and the 95 % confidence interval's half of it.
    samples : dict
        What was held in the course of it, in the first of the processes.
    """

    benchmark: str
    name: str
    cycles: int
    seconds: float
    slopes: Mapping[str, Sequence[float]]
    samples: Mapping[str, Sequence[float]]
    kind: Literal["growth"] = "growth"

    @property
    def verdict(self) -> str:
        """Whether descriptors and allocated blocks stay as they are, within the error; of what is managed."""
        if "plain" in self.name:
            return ""
        slopes = [self.slopes[name] for name in ("descriptors", "blocks")]
        flat = all(abs(gain) <= error + _ROUNDING for gain, error in slopes)
        return "met" if flat else "behind"

    def __str__(self) -> str:
        slopes = ", ".join(f"{name} {slope:+.3f} ± {error:.3f}" for name, (slope, error) in self.slopes.items())
        return f"growth: {self.name}: {self.cycles} cycles in {self.seconds:.0f} s; per 1,000 cycles: {slopes}"


def planned(effort: Effort, backends: Sequence[str] = BACKENDS[:1]) -> int:
    """Return how many lines there will be."""
    return len(backends) * len(KINDS)


def lines(effort: Effort, backends: Sequence[str] = BACKENDS[:1]) -> Iterator[Growth]:
    """Measure them."""
    for backend in backends:
        with place(backend) as (url, options):
            for kind in KINDS:
                cycles = effort.cycles_of_plain if "distinct" in kind else effort.cycles
                processes = 1 if "distinct" in kind else effort.processes
                yield of_all([in_a_process(backend, kind, url, options, cycles) for _ in range(processes)])


@contextmanager
def place(backend: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the URL of a hierarchy on a server, and the options that go with it."""
    with ExitStack() as stack:
        if backend == "http":
            http = stack.enter_context(http_server())
            write_hierarchy(str(http.root / "data.zarr"))
            yield f"{http.url}/data.zarr", {}
            return
        server: Any = stack.enter_context(gcs_server() if backend == "gs" else s3_server())
        server.create_bucket("bucket")
        url = f"{backend}://bucket/data.zarr"
        with ManagedStore(url, storage_options=server.storage_options) as store:
            write_hierarchy(store)
        yield url, server.storage_options


def in_a_process(backend: str, kind: str, url: str, options: dict[str, Any], cycles: int) -> Growth:
    """Run the cycles in a fresh process, and take the slopes."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.growth", repr((backend, kind, url, options, cycles))],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # gcsfs says of each bucket that the server speaks no gRPC
        text=True,
        check=True,
    )
    seconds, samples = json.loads(result.stdout.splitlines()[-1])
    slopes = {name: slope(samples["cycle"], samples[name]) for name in HELD}
    shown = {name: [round(each, 2) for each in values[::2]] for name, values in samples.items()}
    return Growth("growth", f"{backend}, {kind}", cycles, seconds, slopes, shown)


def of_all(runs: Sequence[Growth]) -> Growth:
    """Take the mean of several processes; the error is that of the mean, by what they differ from each other."""
    first = runs[0]
    if len(runs) == 1:
        return first
    gains = {name: np.array([run.slopes[name][0] for run in runs]) for name in HELD}
    slopes = {
        name: (float(each.mean()), _STUDENT[len(runs)] * float(each.std(ddof=1)) / len(runs) ** 0.5)
        for name, each in gains.items()
    }
    seconds = sum(run.seconds for run in runs) / len(runs)
    return Growth(first.benchmark, first.name, first.cycles, seconds, slopes, first.samples)


def slope(cycles: list[float], values: list[float]) -> tuple[float, float]:
    """Return the gain in a thousand cycles, and twice its standard error."""
    first = int(len(cycles) * WARM_UP)
    x, y = np.array(cycles[first:]) / 1000, np.array(values[first:])
    deviations = x - x.mean()
    gain = float(deviations @ y / (deviations @ deviations))
    residuals = y - y.mean() - gain * deviations
    error = np.sqrt(residuals @ residuals / max(1, len(x) - 2) / (deviations @ deviations))
    return gain, 2 * float(error)


def measured(
    backend: str, kind: str, url: str, options: dict[str, Any], cycles: int
) -> tuple[float, dict[str, list[float]]]:
    """Run the cycles in this process; give what it held at every sample."""
    process = psutil.Process()
    every = max(1, cycles // SAMPLES)
    samples = np.zeros((-(-cycles // every), len(HELD) + 1))  # made beforehand: it must not be what grows
    sync(asyncio.sleep(0))
    started = time.monotonic()
    with StorePool() as pool:
        for cycle in range(cycles):
            KINDS[kind](url, options, _OWN[backend](cycle), pool)
            if cycle % every == 0:
                gc.collect()
                held = Footprint.now()
                blocks, memory = sys.getallocatedblocks(), process.memory_info().rss / 2**20
                samples[cycle // every] = cycle, held.descriptors, held.threads, held.tasks, blocks, memory
    return time.monotonic() - started, dict(zip(("cycle", *HELD), samples.T.tolist(), strict=True))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # what plain zarr leaves is counted, not read
    sys.stdout.write(f"{json.dumps(measured(*eval(sys.argv[1])))}\n")
    sys.stdout.flush()
    os._exit(0)  # nothing that is left open may keep the process
