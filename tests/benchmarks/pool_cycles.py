"""Opening a group and reading its attributes, many times: a pool against plain zarr with its cached filesystem.

``python -m tests.benchmarks.pool_cycles [--pairs 100] [--cycles 1000] [--json FILE]``

Plain zarr makes a store of the same URL in each cycle, whose filesystem comes from fsspec's cache and is never closed.
A private store, which opens and closes a session in each cycle, is there for comparison.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore, StorePool
from tests.benchmarks._pairs import compare
from tests.hierarchy import write_hierarchy
from tests.servers import http_server


def read(store: Any) -> None:
    zarr.open_group(store, mode="r").attrs.asdict()


def pooled(pool: StorePool, url: str) -> None:
    with pool.store(url) as store:
        read(store)


def private(url: str) -> None:
    with ManagedStore(url) as store:
        read(store)


def plain(url: str) -> None:
    read(FsspecStore.from_url(url, read_only=True))


def seconds(cycle: Callable[[], None], cycles: int) -> float:
    start = time.perf_counter()
    for _ in range(cycles):
        cycle()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="of --cycles / --pairs cycles each")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with http_server() as server, StorePool() as pool:
        write_hierarchy(str(server.root / "data.zarr"))
        url = f"{server.url}/data.zarr"
        cycles = max(1, arguments.cycles // arguments.pairs)

        def measure(cycle: Callable[[], None]) -> Callable[[], float]:
            return lambda: seconds(cycle, cycles)

        base = measure(lambda: plain(url))
        results = [
            compare("pool, to plain cached", measure(lambda: pooled(pool, url)), base, pairs=arguments.pairs),
            compare("private, to plain cached", measure(lambda: private(url)), base, pairs=arguments.pairs),
        ]
        cached = FsspecStore.from_url(url).fs
        sync(cached._session.close())
    for result in results:
        print(
            result, f"{result.seconds / cycles * 1e3:.2f} ms against {result.seconds_base / cycles * 1e3:.2f} a cycle"
        )
    if arguments.json:
        arguments.json.write_text("".join(f"{result.to_json()}\n" for result in results))


if __name__ == "__main__":
    main()
