"""Leaving after 100 pooled connections, against closing a bare aiohttp session with as many.

``python -m tests.benchmarks.leaving [--pairs 20] [--json FILE]``
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

import aiohttp
from zarr.core.buffer import default_buffer_prototype

from managed_store import ManagedStore
from tests.benchmarks._pairs import compare
from tests.servers import http_server

CONNECTIONS = 100
PROTOTYPE = default_buffer_prototype()


async def leave_a_store(url: str) -> float:
    async with ManagedStore(url) as store:
        await asyncio.gather(*(store.get("key", PROTOTYPE) for _ in range(CONNECTIONS)))
        start = time.perf_counter()
    return time.perf_counter() - start


async def close_a_session(url: str) -> float:
    async def get(session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/key") as response:
            await response.read()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(get(session) for _ in range(CONNECTIONS)))
        start = time.perf_counter()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # The latency makes the requests overlap, so that each has a connection of its own.
    with http_server(latency=0.2) as server:
        (server.root / "key").write_bytes(b"x" * 1024)
        result = compare(
            f"leaving with {CONNECTIONS} connections",
            lambda: asyncio.run(leave_a_store(server.url)),
            lambda: asyncio.run(close_a_session(server.url)),
            pairs=arguments.pairs,
        )
    print(result)
    if arguments.json:
        arguments.json.write_text(f"{result.to_json()}\n")


if __name__ == "__main__":
    main()
