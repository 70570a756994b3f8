"""One cell of the leak matrix, run as a program of its own: use a store in one way, and report what is left open.

``python -X dev -W error -m tests.cell '{"url": …, "options": …, "uses": […], "plain": false}'`` prints one JSON line:
for each use, what the process held more of afterwards than before, or the error that the use ended with.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import uvloop
import zarr
import zarr.api.asynchronous
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.footprint import Footprint

EXPECTED = np.arange(24, dtype="i4").reshape(4, 6)


class Subject:
    """Makes stores over one URL: managed ones, or plain zarr ones for the control."""

    def __init__(self, url: str, options: dict[str, Any], *, plain: bool) -> None:
        self.url, self.options, self.plain = url, options, plain

    def store(self) -> AbstractContextManager[Any]:
        return self._plain_store() if self.plain else ManagedStore(self.url, storage_options=self.options)

    def async_store(self) -> AbstractAsyncContextManager[Any]:
        return self._plain_async_store() if self.plain else ManagedStore(self.url, storage_options=self.options)

    @contextmanager
    def _plain_store(self) -> Any:
        with FsspecStore.from_url(self.url, storage_options=self.options) as store:
            yield store

    @asynccontextmanager
    async def _plain_async_store(self) -> Any:
        with FsspecStore.from_url(self.url, storage_options=self.options) as store:
            yield store


def read(store: Any) -> None:
    """Open the hierarchy through zarr's synchronous API and compare an array."""
    group = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(group["numbers"][:], EXPECTED)


async def aread(store: Any) -> None:
    """The same on the running loop."""
    group = await zarr.api.asynchronous.open_group(store, mode="r")
    array = await group.getitem("numbers")
    np.testing.assert_array_equal(await array.getitem(...), EXPECTED)


def use_sync(subject: Subject) -> None:
    with subject.store() as store:
        read(store)


def use_async(subject: Subject) -> None:
    async def main() -> None:
        async with subject.async_store() as store:
            await aread(store)

    asyncio.run(main())


def use_uvloop(subject: Subject) -> None:
    async def main() -> None:
        async with subject.async_store() as store:
            await aread(store)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def use_run_twice(subject: Subject) -> None:
    with subject.store() as store:
        asyncio.run(aread(store))
        asyncio.run(aread(store))


def use_sync_then_async(subject: Subject) -> None:
    with subject.store() as store:
        read(store)
        asyncio.run(aread(store))


def use_async_then_sync(subject: Subject) -> None:
    with subject.store() as store:
        asyncio.run(aread(store))
        read(store)


def use_mixed(subject: Subject) -> None:
    """Both APIs within one coroutine, closed from there."""

    async def main() -> None:
        async with subject.async_store() as store:
            await aread(store)
            read(store)
            await asyncio.gather(aread(store), asyncio.to_thread(read, store))

    asyncio.run(main())


def use_threads(subject: Subject) -> None:
    """Several threads read the same store, some through zarr's loop and some on loops of their own."""
    failures: list[BaseException] = []

    def work(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    with subject.store() as store:
        work_items: list[Callable[[], None]] = [
            *[lambda: read(store)] * 4,
            *[lambda: asyncio.run(aread(store))] * 4,
        ]
        threads = [threading.Thread(target=work, args=(item,)) for item in work_items]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def use_derived(subject: Subject) -> None:
    """Only the handle that zarr derives for ``mode="r"`` survives; closing it ends the sessions."""
    if subject.plain:
        group = zarr.open_group(FsspecStore.from_url(subject.url, storage_options=subject.options), mode="r")
    else:
        group = zarr.open_group(ManagedStore(subject.url, storage_options=subject.options), mode="r")
    np.testing.assert_array_equal(group["numbers"][:], EXPECTED)
    group.store.close()


def use_dropped_loop(subject: Subject) -> None:
    """A loop is closed without shutting down its async generators; the next use finds its session dead."""
    with subject.store() as store:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(aread(store))
        loop.close()
        asyncio.run(aread(store))


def use_never(subject: Subject) -> None:
    with subject.store():
        pass


USES: dict[str, Callable[[Subject], None]] = {
    name.removeprefix("use_"): function for name, function in dict(globals()).items() if name.startswith("use_")
}


def main() -> None:
    config = json.loads(sys.argv[1])
    subject = Subject(config["url"], config["options"], plain=config["plain"])
    sync(asyncio.sleep(0))  # zarr's loop and its thread belong to zarr
    uvloop.new_event_loop().close()  # libuv keeps a pipe for the whole process
    import_backend(config["url"])
    gc.collect()
    gc.disable()  # nothing may depend on a collection
    report: dict[str, Any] = {}
    for name in config["uses"]:
        before = footprint()
        try:
            USES[name](subject)
        except Exception as error:
            report[name] = {"error": f"{type(error).__name__}: {error}"}
        else:
            report[name] = before.grown_by(footprint())
    print(json.dumps(report), flush=True)


def footprint() -> Footprint:
    """Count what is open, without a garbage collection; but for gRPC.

    A remote call that fails leaves its exception and frames of google-api-core in a reference cycle. While that lives,
    gRPC's core goes on trying to connect the closed channel, for a millisecond now and then, on threads of its own.
    The test server speaks no gRPC, so each call fails; only where gRPC is loaded, the cycles are collected first.
    """
    if "grpc" in sys.modules:
        gc.collect()
        time.sleep(0.05)
    return Footprint.now()


def import_backend(url: str) -> None:
    """Import what the first use would, and start gRPC's poller.

    The poller serves the whole process: it starts with the first channel, and stops when the last one is collected.
    An idle channel that lives as long as this program keeps it out of the figures.
    """
    import fsspec

    if fsspec.get_filesystem_class(url.partition("://")[0]).__name__ == "ExtendedGcsFileSystem":
        import grpc

        async def keep_a_channel() -> None:
            kept.append(grpc.aio.insecure_channel("127.0.0.1:1"))  # idle: one that has failed would go on trying
            async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await channel.unary_unary("/any/method")(b"", timeout=0.2)

        sync(keep_a_channel())


kept: list[Any] = []


if __name__ == "__main__":
    main()
