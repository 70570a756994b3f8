"""The uses of the leak matrix: each opens the hierarchy in one way, compares what it reads, and lets go."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import uvloop
import zarr
import zarr.api.asynchronous
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.hierarchy import EXPECTED, write_hierarchy

# In a cell: the filesystems of managed stores, kept, so that what is closed was not merely dropped.
kept: list[Any] | None = None


class Subject:
    """Makes stores over one URL: managed ones, or plain zarr ones for the control."""

    def __init__(self, url: str, options: dict[str, Any], *, plain: bool, in_cycles: bool = False) -> None:
        self.url, self.options, self.plain, self.in_cycles = url, options, plain, in_cycles

    def new_store(self) -> Any:
        """A store that nobody closes."""
        if self.plain:
            return FsspecStore.from_url(self.url, storage_options=self.options)
        return ManagedStore(self.url, storage_options=self.options)

    def store(self) -> AbstractContextManager[Any]:
        return self._plain_store() if self.plain else self.new_store()

    def async_store(self) -> AbstractAsyncContextManager[Any]:
        return self._plain_async_store() if self.plain else self.new_store()

    @contextmanager
    def _plain_store(self) -> Any:
        with self.new_store() as store:
            yield store

    @asynccontextmanager
    async def _plain_async_store(self) -> Any:
        with self.new_store() as store:
            yield store


def read(store: Any) -> None:
    """Open the hierarchy through zarr's synchronous API and compare an array."""
    group = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(group["numbers"][:], EXPECTED)
    _keep(store)


async def aread(store: Any) -> None:
    """The same on the running loop."""
    group = await zarr.api.asynchronous.open_group(store, mode="r")
    array = await group.getitem("numbers")
    np.testing.assert_array_equal(await array.getitem(...), EXPECTED)
    _keep(store)


def _keep(store: Any) -> None:
    if kept is not None and isinstance(store, ManagedStore):
        kept.append(store.fs)


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
    group = zarr.open_group(subject.new_store(), mode="r")
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


def use_forgotten(subject: Subject) -> None:
    """The last handle is dropped unclosed: one ResourceWarning, and the sessions close in the background."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(subject.new_store())
        if subject.in_cycles:
            gc.collect()
    _check_one_warning(subject, caught)


def use_forgotten_async(subject: Subject) -> None:
    """The same on a running loop, which runs on."""

    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await aread(subject.new_store())
            if subject.in_cycles:
                gc.collect()
        _check_one_warning(subject, caught)
        await asyncio.sleep(0.05)

    asyncio.run(main())


def _check_one_warning(subject: Subject, caught: list[warnings.WarningMessage]) -> None:
    messages = [str(each.message) for each in caught]
    ours = [each for each in messages if "was never closed" in each]
    # fsspec's MMapCache drops the file that it has mapped.
    others = [each for each in messages if each not in ours and "unclosed file <_io.BufferedRandom" not in each]
    if not subject.plain and (len(ours) != 1 or __file__ not in ours[0]):
        raise AssertionError(f"not one warning that names this file: {ours}")
    if others:
        raise AssertionError(f"other warnings: {others}")


def use_write(subject: Subject) -> None:
    """Write the hierarchy to a place of its own, read it back on another loop, and delete it."""
    name = f"written-{uuid.uuid4().hex[:8]}.zarr"
    elsewhere = Subject(subject.url.replace("data.zarr", name), subject.options, plain=subject.plain)
    with elsewhere.store() as store:
        write_hierarchy(store)
        asyncio.run(aread(store))
        if store.supports_deletes:
            del zarr.open_group(store, mode="r+")["numbers"]


USES: dict[str, Callable[[Subject], None]] = {
    name.removeprefix("use_"): function for name, function in dict(globals()).items() if name.startswith("use_")
}

# The uses that close in the background, after they have returned.
CLOSES_IN_BACKGROUND = frozenset({"forgotten", "forgotten_async"})
