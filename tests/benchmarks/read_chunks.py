"""Reading 2,000 chunks of 1 KiB over loopback HTTP: the managed store against the FsspecStore underneath.

``python -m tests.benchmarks.read_chunks [--pairs 40] [--json FILE]``
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import zarr
import zarr.api.asynchronous
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.benchmarks._pairs import Comparison, compare
from tests.servers import http_server

CHUNKS = 2000


def seconds_sync(array: Any) -> float:
    start = time.perf_counter()
    array[:]
    return time.perf_counter() - start


async def seconds_async(array: Any) -> float:
    start = time.perf_counter()
    await array.getitem(...)
    return time.perf_counter() - start


def plain_store(url: str) -> FsspecStore:
    return FsspecStore.from_url(url, storage_options={"skip_instance_cache": True})


def compare_sync(url: str, pairs: int) -> Comparison:
    plain = plain_store(url)
    with ManagedStore(url) as managed:
        arrays = [zarr.open_array(store, mode="r") for store in (managed, plain)]
        result = compare("sync", *[lambda each=each: seconds_sync(each) for each in arrays], pairs=pairs)
    sync(plain.fs._session.close())
    return result


def compare_async(url: str, pairs: int) -> Comparison:
    with asyncio.Runner() as runner:
        plain = plain_store(url)
        managed = ManagedStore(url)
        arrays = [runner.run(zarr.api.asynchronous.open_array(store=store, mode="r")) for store in (managed, plain)]
        measures = [lambda each=each: runner.run(seconds_async(each)) for each in arrays]
        result = compare("async", *measures, pairs=pairs)
        runner.run(managed.aclose())
        runner.run(plain.fs._session.close())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, http_server(Path(folder)) as server:
        array = zarr.create_array(
            Path(folder) / "data.zarr", shape=(CHUNKS * 128,), chunks=(128,), dtype="f8", compressors=None
        )
        array[:] = 1.0
        url = f"{server.url}/data.zarr"
        results = [compare_sync(url, arguments.pairs), compare_async(url, arguments.pairs)]
    for result in results:
        print(result)
    if arguments.json:
        arguments.json.write_text("".join(f"{result.to_json()}\n" for result in results))


if __name__ == "__main__":
    main()
