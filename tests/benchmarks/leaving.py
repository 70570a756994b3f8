"""Leaving with pooled connections, against closing a bare aiohttp session with as many."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import aiohttp
from zarr.core.buffer import default_buffer_prototype

from managed_store import ManagedStore
from tests.benchmarks._measuring import Effort, Line, compare
from tests.servers import http_server

__all__ = ["lines", "planned"]

PROTOTYPE = default_buffer_prototype()


def planned(effort: Effort) -> int:
    """Return how many lines there will be."""
    return len(effort.connections)


def lines(effort: Effort) -> Iterator[Line]:
    """Measure them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    try:
        for connections in effort.connections:
            # The latency makes the requests overlap, so that each has a connection of its own.
            with http_server(latency=0.5 if connections > 1 else 0.0) as server:
                (server.root / "key").write_bytes(b"x" * 1024)
                yield compare(
                    "leaving",
                    f"with {connections} pooled connection{'s' * (connections > 1)}",
                    {
                        "managed": partial(_run, leave_a_store, server.url, connections),
                        "aiohttp's session.close()": partial(_run, close_a_session, server.url, connections),
                    },
                    effort=effort,
                    target=1.5,
                )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _run(leave: Callable[[str, int], Coroutine[Any, Any, float]], url: str, connections: int) -> float:
    return asyncio.run(leave(url, connections))


async def without_a_limit(**options: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), **options)


async def leave_a_store(url: str, connections: int) -> float:
    async with ManagedStore(url, storage_options={"get_client": without_a_limit}) as store:
        await asyncio.gather(*(store.get("key", PROTOTYPE) for _ in range(connections)))
        start = time.perf_counter()
    return time.perf_counter() - start


async def close_a_session(url: str, connections: int) -> float:
    async def get(session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/key") as response:
            await response.read()

    async with await without_a_limit() as session:
        await asyncio.gather(*(get(session) for _ in range(connections)))
        start = time.perf_counter()
    return time.perf_counter() - start
