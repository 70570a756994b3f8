"""A store that is dropped unclosed is harmless, and can be seen: one ResourceWarning says where it was made."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore
from managed_store._leases import PROCESS_POOL
from tests.conftest import write_hierarchy
from tests.servers import FolderServer, http_server

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"


@pytest.fixture(scope="module")
def server() -> Iterator[FolderServer]:
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        write_hierarchy(str(server.root / "data.zarr"))
        yield server


@contextmanager
def one_warning() -> Iterator[list[Any]]:
    """Expect exactly one warning within the block, a ResourceWarning; it is in the list afterwards."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    assert [warning.category for warning in caught] == [ResourceWarning]


def line_of(function: Callable[..., Any], text: str) -> int:
    """The number of the line in this file, within `function`, that has `text` in it."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def forget(url: str) -> None:
    """A helper that uses a store and never closes it."""
    store = ManagedStore(url)  # made here
    sync(store.get(KEY, PROTOTYPE))


def test_a_store_forgotten_in_a_function(server: FolderServer) -> None:
    """The warning carries file and line of the constructor call and says what to do; the server sees the close."""
    with one_warning() as caught:
        forget(server.url)
    warning = caught[0]
    line = line_of(forget, "# made here")
    assert (warning.filename, warning.lineno) == (__file__, line)
    message = str(warning.message)
    assert f"{__file__}:{line}" in message
    assert server.url in message
    assert "with" in message
    assert warning.source is not None  # for tracemalloc
    assert server.wait_for_connections(0) == 0


def test_the_warning_has_no_secrets(server: FolderServer) -> None:
    """Neither user info, nor the query, nor an option shows in the warning."""
    url = server.url.replace("http://", "http://user:hunter2@")

    def forget_secrets() -> None:
        store = ManagedStore(f"{url}/data.zarr", storage_options={"headers": {"X-Token": "hunter3"}})
        sync(store.exists("zarr.json"))

    with one_warning() as caught:
        forget_secrets()
    assert "hunter" not in str(caught[0].message)
    assert server.wait_for_connections(0) == 0


def test_a_store_forgotten_in_a_cycle(server: FolderServer) -> None:
    """A store in a reference cycle is seen when the garbage collector finds it."""

    def tie() -> None:
        store = ManagedStore(server.url)
        sync(store.get(KEY, PROTOTYPE))
        cycle: list[Any] = [store]
        cycle.append(cycle)

    gc.collect()
    tie()
    assert server.connections() == 1
    with one_warning():
        gc.collect()
    assert server.wait_for_connections(0) == 0


def test_a_store_forgotten_through_a_derived_handle(server: FolderServer) -> None:
    """While only the handle that zarr derived lives there is no warning, and reading goes on; then there is one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = zarr.open_group(ManagedStore(f"{server.url}/data.zarr"), mode="r")
        gc.collect()
        assert group["numbers"][0, 1] == 1
        assert server.connections() > 0
    assert caught == []
    with one_warning() as caught:
        del group
        gc.collect()
    assert caught[0].filename == __file__
    assert server.wait_for_connections(0) == 0


def test_the_order_in_which_handles_go_does_not_matter(server: FolderServer) -> None:
    """The store outlives its derived handle: the warning comes with the store."""
    store = ManagedStore(server.url)
    derived = store.with_read_only(True)
    sync(derived.get(KEY, PROTOTYPE))
    del derived
    assert sync(store.exists(KEY))
    with one_warning():
        del store
    assert server.wait_for_connections(0) == 0


def test_a_derived_handle_that_is_closed_last_closes_everything(server: FolderServer) -> None:
    """The owner was dropped and the last handle is closed: nothing was forgotten, nothing is left."""
    derived = ManagedStore(server.url).with_read_only(True)
    sync(derived.get(KEY, PROTOTYPE))
    derived.close()
    assert server.wait_for_connections(0) == 0
    del derived


def test_no_warning_for_a_store_without_anything_open(server: FolderServer) -> None:
    """A store that has done no I/O, was closed, or whose only loop has ended is dropped in silence."""
    opened = server.opened()
    ManagedStore(server.url)
    ManagedStore(server.url).with_read_only(True)
    assert server.opened() == opened
    closed = ManagedStore(server.url)
    sync(closed.get(KEY, PROTOTYPE))
    closed.close()
    del closed
    ended = ManagedStore(server.url)
    asyncio.run(ended.get(KEY, PROTOTYPE))
    del ended
    gc.collect()
    assert server.wait_for_connections(0) == 0


def test_a_constructor_that_fails_warns_of_nothing() -> None:
    """An object that was never a store is collected in silence."""
    with pytest.raises(ValueError, match="close_timeout"):
        ManagedStore("memory://x", close_timeout=-1)
    gc.collect()


@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_a_store_forgotten_in_a_run(server: FolderServer, wait: float) -> None:
    """A store dropped on its own loop is closed by that loop, even if the run ends at once."""

    async def main() -> None:
        store = ManagedStore(server.url)
        await asyncio.gather(*(store.get(KEY, PROTOTYPE) for _ in range(5)))
        del store
        await asyncio.sleep(wait)

    with one_warning():
        asyncio.run(main())
    assert server.wait_for_connections(0) == 0


def test_a_store_forgotten_on_two_loops_and_dropped_in_a_third_thread(server: FolderServer) -> None:
    """One warning, whatever the number of loops; a paused loop's session is cut off."""
    stores = [ManagedStore(server.url)]
    with asyncio.Runner() as runner:
        runner.run(stores[0].get(KEY, PROTOTYPE))
        sync(stores[0].get(KEY, PROTOTYPE))
        with one_warning():
            thread = threading.Thread(target=stores.clear)
            thread.start()
            thread.join()
        assert server.wait_for_connections(0) == 0
        runner.run(asyncio.sleep(0.01))


def test_a_forgotten_store_does_not_block_who_drops_it(server: FolderServer) -> None:
    """Dropping it from within zarr's own loop, where waiting would be a deadlock, returns at once."""
    stores = [ManagedStore(server.url)]
    sync(stores[0].get(KEY, PROTOTYPE))

    async def drop() -> None:
        stores.clear()

    with one_warning():
        sync(drop())
    assert server.wait_for_connections(0) == 0


def test_a_subclass_is_warned_of_where_it_was_made(server: FolderServer) -> None:
    """A class derived by the user changes nothing: the warning names a line of the user's."""

    class Mine(ManagedStore):
        pass

    def forget_mine() -> None:
        store = Mine(server.url)  # mine
        sync(store.get(KEY, PROTOTYPE))

    with one_warning() as caught:
        forget_mine()
    assert caught[0].lineno == line_of(forget_mine, "# mine")
    assert server.wait_for_connections(0) == 0


def test_an_unpickled_copy_is_dropped_in_silence(server: FolderServer) -> None:
    """A copy that came from a pickle was made by nobody: no warning, and the next copy finds its session open."""
    stored = pickle.dumps(ManagedStore(server.url))
    opened = server.opened()
    for _ in range(3):
        copy = pickle.loads(stored)
        sync(copy.get(KEY, PROTOTYPE))
        del copy
    assert server.opened() - opened == 1
    sync(PROCESS_POOL.aclose_sessions(timeout=5.0))
    assert server.wait_for_connections(0) == 0
