"""What one loop or handle writes or deletes, every other loop and handle of the store sees at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore
from tests.conftest import Place

PROTOTYPE = default_buffer_prototype()
T = TypeVar("T")

CASES = [
    pytest.param("s3", {}, id="s3"),
    pytest.param("s3", {"use_listings_cache": True}, id="s3-cached"),
    pytest.param("gs", {}, id="gs"),
    pytest.param("gs", {"use_listings_cache": True}, id="gs-cached"),
    pytest.param("file", {}, id="file"),
    pytest.param("memory", {}, id="memory"),
]


class OwnLoop:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop):
            self._loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def loops() -> Iterator[list[Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """Three ways to run a coroutine: on zarr's loop and on two others."""
    own = [OwnLoop(), OwnLoop()]
    yield [sync, *(loop.run for loop in own)]
    for loop in own:
        loop.end()


async def seen(store: ManagedStore) -> dict[str, Any]:
    """Everything that can be asked about the key ``folder/key``."""
    value = await store.get("folder/key", PROTOTYPE)
    return {
        "get": None if value is None else value.to_bytes(),
        "exists": await store.exists("folder/key"),
        "list": [key async for key in store.list()],
        "list_prefix": [key async for key in store.list_prefix("folder/")],
        "list_dir": [name async for name in store.list_dir("folder")],
        "list_dir of the root": [name async for name in store.list_dir("")],
        "is_empty": await store.is_empty("folder"),
        "is_empty of the root": await store.is_empty(""),
        "getsize_prefix": await store.getsize_prefix("folder"),
    }


NOTHING = {
    "get": None,
    "exists": False,
    "list": [],
    "list_prefix": [],
    "list_dir": [],
    "list_dir of the root": [],
    "is_empty": True,
    "is_empty of the root": True,
    "getsize_prefix": 0,
}


def one_key(content: bytes) -> dict[str, Any]:
    return {
        "get": content,
        "exists": True,
        "list": ["folder/key"],
        "list_prefix": ["folder/key"],
        "list_dir": ["key"],
        "list_dir of the root": ["folder"],
        "is_empty": False,
        "is_empty of the root": False,
        "getsize_prefix": len(content),
    }


@pytest.mark.parametrize(("backend", "options"), CASES)
def test_what_one_loop_writes_all_others_see(
    backend: str, options: dict[str, Any], empty_place: Place, loops: list[Callable[..., Any]]
) -> None:
    """Written, overwritten and deleted on each loop in turn, after all loops and handles have listed."""
    with ManagedStore(empty_place.url, storage_options={**empty_place.options, **options}) as store:
        handles = [store, store.with_read_only(True)]

        def everybody_sees(expected: dict[str, Any]) -> None:
            for run in loops:
                for handle in handles:
                    found = run(seen(handle))
                    if backend == "file":  # an empty folder may stay behind
                        found["list_dir of the root"] = expected["list_dir of the root"]
                    assert found == expected

        everybody_sees(NOTHING)
        for number, run in enumerate(loops):
            for content in (b"first", b"second, longer"):
                run(store.set("folder/key", cpu.Buffer.from_bytes(content)))
                everybody_sees(one_key(content))
            delete = [lambda: store.delete("folder/key"), lambda: store.delete_dir("folder"), lambda: store.clear()]
            run(delete[number]())
            everybody_sees(NOTHING)
        assert store.statistics().loops == 3


@pytest.mark.parametrize(("backend", "options"), [case for case in CASES if "cached" in str(case.id)])
def test_a_listing_under_way_during_a_write_is_not_kept(
    backend: str, options: dict[str, Any], empty_place: Place, loops: list[Callable[..., Any]]
) -> None:
    """Listings and writes at the same time, on three loops: when the last write is done, everybody sees it."""
    with ManagedStore(empty_place.url, storage_options={**empty_place.options, **options}) as store:

        async def list_often() -> None:
            for _ in range(8):
                async for _ in store.list_dir("folder"):
                    pass
                await store.exists("folder/7")

        async def write_often() -> None:
            for number in range(8):
                await store.set(f"folder/{number}", cpu.Buffer.from_bytes(b"x"))

        threads = [threading.Thread(target=run, args=(list_often(),)) for run in loops]
        threads.append(threading.Thread(target=loops[0], args=(write_often(),)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def names() -> list[str]:
            return sorted([name async for name in store.list_dir("folder")])

        for run in loops:
            assert run(names()) == [str(number) for number in range(8)]
            assert run(store.exists("folder/7"))
