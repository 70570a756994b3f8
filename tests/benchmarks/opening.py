"""Opening a group, reading its attributes and closing, many times: private stores and a pool's, against plain zarr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore, StorePool
from tests.benchmarks._measuring import Effort, Line, Measure, compare, timed
from tests.benchmarks._places import close_plain
from tests.hierarchy import write_hierarchy
from tests.servers import http_server

__all__ = ["CYCLES", "KINDS", "lines", "planned"]

CYCLES = 20
"""In a row: one measurement."""


def read(store: Any) -> None:
    zarr.open_group(store, mode="r").attrs.asdict()


Options = dict[str, Any]


def private(url: str, options: Options, own: Options, pool: StorePool) -> None:
    with ManagedStore(url, storage_options={**options, **own}, read_only=True) as store:
        read(store)


def pooled(url: str, options: Options, own: Options, pool: StorePool) -> None:
    with pool.store(url, storage_options=options, read_only=True) as store:
        read(store)


def plain_cached(url: str, options: Options, own: Options, pool: StorePool) -> None:
    read(FsspecStore.from_url(url, storage_options=options, read_only=True))


def plain_closed(url: str, options: Options, own: Options, pool: StorePool) -> None:
    store = FsspecStore.from_url(url, storage_options={**options, **own, "skip_instance_cache": True}, read_only=True)
    read(store)
    sync(close_plain(store))


def plain_distinct(url: str, options: Options, own: Options, pool: StorePool) -> None:
    read(FsspecStore.from_url(url, storage_options={**options, **own}, read_only=True))


KINDS: dict[str, Callable[[str, Options, Options, StorePool], None]] = {
    "private": private,
    "pooled": pooled,
    "plain, cached": plain_cached,
    "plain, closed by hand": plain_closed,
    "plain, distinct options": plain_distinct,
}
"""Ways to open, read and close: with the options of the server, and in some with others of each cycle's own."""


def planned(effort: Effort) -> int:
    """Return how many lines there will be."""
    return 2


def lines(effort: Effort) -> Iterator[Line]:
    """Measure them."""
    with http_server() as server, StorePool() as pool:
        write_hierarchy(str(server.root / "data.zarr"))
        url = f"{server.url}/data.zarr"
        # An instance in fsspec's cache that nobody else uses: it is closed in the end.
        cached = {"headers": {"X-Server": server.url}}
        plain: list[FsspecStore] = []

        def cycle_of_plain() -> None:  # what it leaves open is closed between the measurements
            plain.append(FsspecStore.from_url(url, storage_options={"skip_instance_cache": True}, read_only=True))
            read(plain[-1])

        def many(cycle: Callable[[], None]) -> Measure:
            def cycles() -> None:
                for _ in range(CYCLES):
                    cycle()

            measure = timed(cycles)

            def measured() -> float:
                seconds = measure()
                while plain:
                    sync(close_plain(plain.pop()))
                return seconds

            return measured

        yield compare(
            "opening",
            f"{CYCLES} stores of a pool",
            {
                "pool": many(lambda: pooled(url, cached, {}, pool)),
                "plain zarr with its cached filesystem": many(lambda: plain_cached(url, cached, {}, pool)),
            },
            effort=effort,
            target=1.05,
        )
        yield compare(
            "opening",
            f"{CYCLES} private stores",
            {
                "private": many(lambda: private(url, {}, {}, pool)),
                "plain zarr with filesystems of its own, which stay open": many(cycle_of_plain),
            },
            effort=effort,
        )
        in_the_cache = FsspecStore.from_url(url, storage_options=cached)
        sync(close_plain(in_the_cache))
        type(in_the_cache.fs).clear_instance_cache()
