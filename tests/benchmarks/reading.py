"""Reading, listing and writing over HTTP, HTTPS, GCS and S3 on loopback, without and with 20 ms of latency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
import numpy as np
import zarr
import zarr.api.asynchronous
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.benchmarks._measuring import Effort, Line, Measure, compare, timed
from tests.benchmarks._places import ARRAYS, LARGE_CHUNKS, SMALL, Place, close_plain, contenders, place

__all__ = ["NAMES", "TARGET", "lines", "planned"]

LARGE_READERS = (1, 4)
TARGET = 1.02
NAMES = {"small": "small chunks", "large": "large chunks", "members": "members", "write": "writing small chunks"}

Operations = dict[str, Callable[[int], object]]
"""What can be done with a store, on so many chunks."""


def cases(latency: float, effort: Effort) -> list[tuple[str, int]]:
    """Return what is done on one server, and how many chunks at a time; less where each takes longer."""
    readers = effort.readers if not latency else effort.readers[::2] if len(effort.readers) > 2 else effort.readers
    large = LARGE_READERS if len(effort.readers) > 1 else LARGE_READERS[:1]
    return [
        *(("small", many) for many in readers),
        *(("large", many) for many in large),
        ("members", 10),
        ("write", min(16, max(readers))),
    ]


def planned(effort: Effort) -> int:
    """Return how many lines there will be."""
    return len(effort.backends) * len(INTERFACES) * sum(len(cases(latency, effort)) for latency in effort.latencies)


def lines(effort: Effort) -> Iterator[Line]:
    """Measure them."""
    for backend in effort.backends:
        for latency in effort.latencies:
            server = f"{backend}, 20 ms" if latency else backend
            with place(backend, latency, effort) as where:
                for interface, opened in INTERFACES.items():
                    with opened(where, effort) as of_all:
                        for operation, readers in cases(latency, effort):
                            # How often it is done is no part of the name: it depends on the machine.
                            at_once = "" if operation == "members" else f", {readers} at a time"
                            name = f"{server}, {NAMES[operation]}, {interface}{at_once}"
                            with zarr.config.set({"async.concurrency": readers}):
                                yield line(name, operation, readers, of_all, where, effort)


def line(name: str, operation: str, readers: int, of_all: dict[str, Operations], where: Place, effort: Effort) -> Line:
    """Measure one."""
    left_out = {} if callable(where.obstore) else {"ObjectStore": where.obstore}
    most = {"large": LARGE_CHUNKS, "members": 1}.get(operation, effort.chunks)
    count = min(most, readers)
    base = of_all["FsspecStore"][operation]
    base(count)
    taken = timed(lambda: base(count))()
    count = min(most, max(count, int(count * effort.at_once / taken)))
    measures: dict[str, Measure] = {}
    for contender, operations in of_all.items():
        work = operations.get(operation)
        if work is None:
            continue
        try:
            work(count)
        except Exception as error:  # what cannot do it is told in the table
            if contender in ("managed", "FsspecStore"):
                raise
            left_out[contender] = f"{type(error).__name__}"
            continue
        measures[contender] = timed(partial(work, count))
    return compare("reading", name, measures, effort=effort, target=TARGET, left_out=left_out)


@contextmanager
def synchronously(where: Place, effort: Effort) -> Iterator[dict[str, Operations]]:
    """Open every store by zarr's synchronous interface, and close it."""
    stores = contenders(where)
    try:
        found = {name: _synchronous(store, name, effort) for name, store in stores.items()}
        with asyncio.Runner() as runner:
            session = runner.run(_session(where))
            found["aiohttp"] = _bare(session, where, effort, runner)
            yield found
            runner.run(session.close())
    finally:
        stores["managed"].close()
        sync(close_plain(stores["FsspecStore"]))


@contextmanager
def asynchronously(where: Place, effort: Effort) -> Iterator[dict[str, Operations]]:
    """Open every store on a loop of this thread, and close it there."""
    with asyncio.Runner() as runner:
        stores = contenders(where)
        session = runner.run(_session(where))
        try:
            found = {name: _asynchronous(store, name, effort, runner) for name, store in stores.items()}
            found["aiohttp"] = _bare(session, where, effort, runner)
            yield found
        finally:
            runner.run(_closed(stores["managed"], stores["FsspecStore"], session))


INTERFACES = {"sync": synchronously, "async": asynchronously}


async def _session(where: Place) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=where.ssl or True))


async def _closed(managed: ManagedStore, plain: FsspecStore, session: aiohttp.ClientSession) -> None:
    await managed.aclose()
    await close_plain(plain)
    await session.close()


def _written(effort: Effort) -> Any:
    return np.random.default_rng(0).random(SMALL * effort.chunks)


def _synchronous(store: Any, name: str, effort: Effort) -> Operations:
    mode: Any = "r" if name == "ObjectStore" else "r+"
    small = zarr.open_array(store, path="small", mode=mode)
    large = zarr.open_array(store, path="large", mode="r")
    data, length = _written(effort), large.chunks[0]

    def members(_: int) -> None:
        assert len(zarr.open_group(store, path="many", mode="r").members()) == ARRAYS

    def write(count: int) -> None:
        small[: count * SMALL] = data[: count * SMALL]

    return {
        "small": lambda count: small[: count * SMALL],
        "large": lambda count: large[: count * length],
        "members": members,
        **({} if mode == "r" else {"write": write}),
    }


def _asynchronous(store: Any, name: str, effort: Effort, runner: asyncio.Runner) -> Operations:
    mode: Any = "r" if name == "ObjectStore" else "r+"
    asynchronous = zarr.api.asynchronous
    small = runner.run(asynchronous.open_array(store=store, path="small", mode=mode))
    large = runner.run(asynchronous.open_array(store=store, path="large", mode="r"))
    data, length = _written(effort), large.chunks[0]

    async def members() -> None:
        group = await asynchronous.open_group(store, path="many", mode="r")
        assert len([name async for name, _ in group.members()]) == ARRAYS

    def write(count: int) -> None:
        runner.run(small.setitem(slice(0, count * SMALL), data[: count * SMALL]))

    return {
        "small": lambda count: runner.run(small.getitem(slice(0, count * SMALL))),
        "large": lambda count: runner.run(large.getitem(slice(0, count * length))),
        "members": lambda _: runner.run(members()),
        **({} if mode == "r" else {"write": write}),
    }


def _bare(session: aiohttp.ClientSession, where: Place, effort: Effort, runner: asyncio.Runner) -> Operations:
    """The limit: the same values of the same keys, by as many readers, and nothing done with them."""

    async def read(name: str, count: int) -> None:
        urls = iter([where.key_url(f"{name}/c/{index}") for index in range(count)])

        async def reader() -> None:
            for url in urls:
                async with session.get(url) as response:
                    response.raise_for_status()
                    await response.read()

        await asyncio.gather(*(reader() for _ in range(zarr.config.get("async.concurrency"))))

    return {
        "small": lambda count: runner.run(read("small", count)),
        "large": lambda count: runner.run(read("large", count)),
    }
