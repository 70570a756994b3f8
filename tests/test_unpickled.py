"""Unpickled stores read through the pool of their process: a thousand tasks of a worker share one session per loop."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.base
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StorePool
from managed_store._leases import PROCESS_POOL
from managed_store._pooling import PoolLimits
from tests.conftest import write_hierarchy
from tests.driven_loops import ThreadLoop
from tests.programs import CONTENT, KEY, run
from tests.servers import FolderServer, http_server
from tests.servers._process import REPOSITORY_ROOT
from tests.uses import read

PROTOTYPE = default_buffer_prototype()


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone, and nothing in the pool of this process before and after."""
    gc.collect()  # copies that an error's traceback holds use the same filesystem: all servers are one to HTTP
    sync(PROCESS_POOL.aclose_sessions(timeout=5.0))
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        write_hierarchy(str(server.root / "data.zarr"))
        yield server
        sync(PROCESS_POOL.aclose_sessions(timeout=5.0))
        assert server.wait_for_connections(0) == 0


async def get(store: ManagedStore) -> None:
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    assert value.to_bytes() == CONTENT


def copies(store: ManagedStore, count: int) -> list[ManagedStore]:
    content = pickle.dumps(store)
    return [pickle.loads(content) for _ in range(count)]


def test_a_thousand_copies_open_one_session_for_each_loop(server: FolderServer) -> None:
    """Alive at the same time or one after the other, on zarr's loop and on one of the caller's."""
    loop = ThreadLoop()
    stores = PROCESS_POOL.statistics().stores
    opened = PROCESS_POOL.statistics().opened
    for number, each in enumerate(copies(ManagedStore(server.url), 1000)):
        if number % 20 == 0:
            sync(get(each))
            loop.run(get(each))
        else:
            sync(each._session())
            loop.run(each._session())
    assert PROCESS_POOL.statistics().opened - opened == server.opened() == 2
    del each
    gc.collect()
    for _ in range(20):
        sync(get(*copies(ManagedStore(server.url), 1)))
    assert PROCESS_POOL.statistics().opened - opened == server.opened() == 2
    assert PROCESS_POOL.statistics().stores == stores
    loop.end(properly=True)


def test_copies_at_other_places_share_too_and_other_recipes_do_not(server: FolderServer) -> None:
    """As in any pool: the same options, whatever the path."""
    opened = PROCESS_POOL.statistics().opened
    read(*copies(ManagedStore(f"{server.url}/data.zarr"), 1))
    sync(get(*copies(ManagedStore(server.url), 1)))
    assert PROCESS_POOL.statistics().opened - opened == 1
    for secret in ("one", "two"):
        (store,) = copies(ManagedStore(server.url, storage_options={"headers": {"X-Token": secret}}), 1)
        sync(get(store))
        assert store.fs.kwargs == {"headers": {"X-Token": secret}}
    assert PROCESS_POOL.statistics().opened - opened == 3


def test_leaving_a_copy_closes_what_nobody_else_uses(server: FolderServer) -> None:
    """With a sibling alive its session stays; the last that is left closes it, and ends its own handles."""
    first, second = copies(ManagedStore(f"{server.url}/data.zarr"), 2)
    with second:
        with first:
            group = zarr.open_group(first, mode="r")
            read(second)
        assert (first.closed, second.closed) == (True, False)
        with pytest.raises(StoreClosedError, match=r"data\.zarr"):
            group["numbers"]
        read(second)
        assert PROCESS_POOL.statistics().filesystems == 1
    assert server.wait_for_connections(0) == 0
    assert PROCESS_POOL.statistics().filesystems == 0
    (third,) = copies(ManagedStore(f"{server.url}/data.zarr"), 1)
    read(third)


async def test_leaving_a_copy_asynchronously(server: FolderServer) -> None:
    """The same on the caller's loop, whose session is closed, and on zarr's, which is waited for."""
    (store,) = copies(ManagedStore(server.url), 1)
    async with store:
        await get(store)
        await asyncio.to_thread(sync, get(store))
    assert PROCESS_POOL.statistics().filesystems == 0
    assert await asyncio.to_thread(server.wait_for_connections, 0) == 0


def test_dropped_copies_leave_their_session_until_it_is_idle(
    server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty seconds by default; then it is closed by its loop, whatever its stores."""
    assert PROCESS_POOL.limits.max_idle == 60
    monkeypatch.setattr(PROCESS_POOL, "limits", PoolLimits(max_idle=0.2))
    for _ in range(2):
        sync(get(*copies(ManagedStore(server.url), 1)))
    assert server.opened() == PROCESS_POOL.statistics().filesystems == 1
    deadline = time.monotonic() + 10
    while PROCESS_POOL.statistics().filesystems:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.wait_for_connections(0) == 0


def test_a_pickled_store_of_a_pool(server: FolderServer) -> None:
    """It belongs to its process's pool: closing the pool that it came from does not close it."""
    with StorePool(storage_options={"headers": {"X-Token": "one"}}, close_timeout=2.5) as pool:
        store = pool.store(server.url, read_only=True)
        (other,) = copies(store, 1)
        assert other == store == ManagedStore(
            server.url, storage_options={"headers": {"X-Token": "one"}}, read_only=True
        )  # fmt: skip
        assert (other.close_timeout, other.read_only) == (2.5, True)
    sync(get(other))
    assert other.fs.kwargs == {"headers": {"X-Token": "one"}}
    assert store.closed
    (closed,) = copies(store, 1)
    assert closed.closed
    other.close()


@pytest.mark.parametrize("how", ["store", "pool", "copy"])
def test_a_pickle_of_a_closed_store_is_closed(server: FolderServer, how: str) -> None:
    """Closing is final for every copy made afterwards; those made before go on."""
    with StorePool() as pool:
        store = {
            "store": lambda: ManagedStore(server.url),
            "pool": lambda: pool.store(server.url),
            "copy": lambda: copy.copy(ManagedStore(server.url)),
        }[how]()
        (before,) = copies(store, 1)
        store.close()
        for after in (*copies(store, 1), copy.copy(store), copy.deepcopy(store)):
            assert after.closed
            with pytest.raises(StoreClosedError, match=server.url):
                sync(get(after))
        sync(get(before))


PROGRAM = """
import hashlib, pickle, sys
import dask.base
from managed_store import ManagedStore, StorePool
options = {"b": [1, 2.0, None, True, b"x"], "a": {"y": "same", "x": "sa" + "me"}, "names": {"c", "b", "a", "d", "e"},
           "frozen": frozenset({"c", "b", "a", "d", "e"})}
if sys.argv[1] == "reversed":
    options = dict(reversed(options.items()))
stores = [each("http://host/a", storage_options=options) for each in (ManagedStore, StorePool().store)]
stores.append(pickle.loads(pickle.dumps(stores[0])))
for store in stores:
    print(hashlib.sha256(pickle.dumps(store)).hexdigest(), dask.base.tokenize(store))
"""


def test_pickles_and_tokens_are_the_same_in_every_process() -> None:
    """Whatever the seed of hashes, the order of options, and how the store came to be."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, order],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY_ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed, order in (("1", "as it is"), ("2", "reversed"))
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"url": "http://host/b"},
        {"storage_options": {"x": 2}},
        {"storage_options": {"x": True}},
        {"storage_options": {"x": 1, "y": 1}},
        {"read_only": True},
        {"allowed_exceptions": (KeyError,)},
    ],
    ids=str,
)
def test_tokens_tell_stores_apart(other: dict[str, Any]) -> None:
    """By all that makes them read or write something else; and a token asks for nothing to be opened."""
    arguments: dict[str, Any] = {"url": "http://host/a", "storage_options": {"x": 1}}
    tokens = [dask.base.tokenize(ManagedStore(**each)) for each in (arguments, arguments, {**arguments, **other})]
    assert tokens[0] == tokens[1] != tokens[2]


def test_a_copy_that_is_left_open_is_closed_at_exit(server: FolderServer) -> None:
    """In silence, because nobody made it; a pool that somebody made is warned of."""
    program = """
    import pickle
    store = pickle.loads(pickle.dumps(ManagedStore(URL)))
    read(store)
    import atexit
    print(ask().connections)
    """
    ended = run(program, server)
    assert (ended.quietly, ended.output) == ((0, ""), "1\n")
    assert server.wait_for_connections(0) == 0


class Overtaken(set[object]):
    """The handles of an owner whose last store is closed while another takes the owner up: each sees the other."""

    def __init__(self, handles: set[object]) -> None:
        super().__init__(handles)
        self.taken_up, self.let_go, self.added, self.seen = (threading.Event() for _ in range(4))

    def add(self, lease: object) -> None:
        self.taken_up.set()
        assert self.let_go.wait(10)
        super().add(lease)
        self.added.set()

    def discard(self, lease: object) -> None:
        assert not self.added.is_set() or self.seen.wait(10)
        super().discard(lease)

    def __bool__(self) -> bool:
        if self.added.is_set():
            self.seen.set()
        return len(self) > 0


def test_a_copy_takes_up_what_the_last_one_lets_go(server: FolderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, on two threads: what the one had opened is closed, and the other opens its own."""
    one, other = copies(ManagedStore(server.url), 2)
    sync(get(one))
    owner = one._sessions._owner  # type: ignore[union-attr]
    assert owner is not None
    owner.handles = handles = Overtaken(owner.handles)

    class Owners(weakref.WeakValueDictionary[Any, Any]):
        def pop(self, *arguments: Any) -> Any:
            popped = super().pop(*arguments)
            if not handles.let_go.is_set():
                handles.let_go.set()
                assert handles.added.wait(10)
            return popped

    monkeypatch.setattr(PROCESS_POOL, "_owners", Owners(PROCESS_POOL._owners))
    with ThreadPoolExecutor(1) as executor:
        reading = executor.submit(asyncio.run, get(other))
        assert handles.taken_up.wait(10)
        one.close()
        reading.result()
    assert server.wait_for_connections(0) == 0
    other.close()


def test_a_copy_is_closed_as_it_comes_to_what_the_last_one_leaves_to_it(
    server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is nobody left who would close it."""
    one, other = copies(ManagedStore(server.url), 2)
    sync(get(one))
    take_up = PROCESS_POOL.owner

    def overtaken(*arguments: Any) -> Any:
        owner = take_up(*arguments)
        one.close()
        other.close()
        return owner

    monkeypatch.setattr(PROCESS_POOL, "owner", overtaken)
    with pytest.raises(StoreClosedError):
        sync(get(other))
    assert server.wait_for_connections(0) == 0
