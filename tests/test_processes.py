"""Other processes: a forked child has sessions of its own; a pickle carries the recipe, never a session."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StorePool
from tests.servers import FolderServer, http_server
from tests.servers._process import REPOSITORY_ROOT

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"
URL = "http://127.0.0.1:1/x"

# What the programs below begin with. `ask` reads what the server sees.
PROLOGUE = """
import asyncio, logging, os, sys, time
from managed_store import ManagedStore, StoreClosedError
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from tests.servers._statistics import fetch_statistics

# In development mode asyncio says which callbacks were slow: on a busy machine, any.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing"))

PROTOTYPE = default_buffer_prototype()

def read(store):
    assert sync(store.get("greeting", PROTOTYPE)).to_bytes() == b"good morning"

def ask():
    return fetch_statistics(int(sys.argv[2]))

def wait_for(pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, code
"""


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    gc.collect()  # copies that tests before have dropped in cycles use the same filesystem: all servers are one to HTTP
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server
        assert server.wait_for_connections(0) == 0


def run(program: str, server: FolderServer) -> str:
    """Run a program; it must end well and in silence. Returns what it printed."""
    arguments = [PROLOGUE + textwrap.dedent(program), server.url, str(server.statistics_port)]
    # Python 3.12 warns of every fork beside threads, zarr's among them; that is what is tried here.
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore:This process:DeprecationWarning", "-c", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=REPOSITORY_ROOT,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_a_forked_child_reads_through_its_own_session(server: FolderServer) -> None:
    """The child opens connections of its own; the parent's are used by the parent alone, before and after."""
    run(
        """
        with ManagedStore(sys.argv[1]) as store:
            read(store)
            filesystem = store.fs
            opened = ask().opened
            pid = os.fork()
            if pid == 0:
                assert store.statistics().loops == 0
                read(store)
                assert ask().opened == opened + 1
                store.close()
                os._exit(0)
            wait_for(pid)
            read(store)
            assert store.fs is filesystem
            assert ask().opened == opened + 1
            assert store.statistics().opened == 1
        """,
        server,
    )


def test_a_forked_child_that_ends_normally_is_silent(server: FolderServer) -> None:
    """A child that leaves by way of Python's own exit, having used the store or not, warns of nothing inherited."""
    run(
        """
        store = ManagedStore(sys.argv[1])
        read(store)
        for uses in (False, True):
            pid = os.fork()
            if pid == 0:
                if uses:
                    read(store)
                    store.close()
                    try:
                        read(store)
                    except StoreClosedError:
                        pass
                sys.exit(0)
            wait_for(pid)
            read(store)
        store.close()
        """,
        server,
    )


def test_a_child_that_closes_the_store_leaves_the_parent_alone(server: FolderServer) -> None:
    """Closing in a child that never used the store sends nothing on the parent's connections."""
    run(
        """
        store = ManagedStore(sys.argv[1])
        read(store)
        requests, connections = ask().requests, ask().connections
        pid = os.fork()
        if pid == 0:
            store.close()
            os._exit(0)
        wait_for(pid)
        assert (ask().requests, ask().connections) == (requests, connections)
        read(store)
        store.close()
        """,
        server,
    )


def test_a_fork_within_a_run(server: FolderServer) -> None:
    """A child forked by a coroutine reads on a new loop of its own, while the parent's coroutine goes on."""
    run(
        """
        async def main():
            async with ManagedStore(sys.argv[1]) as store:
                await store.get("greeting", PROTOTYPE)
                pid = os.fork()
                if pid == 0:
                    import threading
                    def child():
                        assert asyncio.run(store.get("greeting", PROTOTYPE)).to_bytes() == b"good morning"
                    thread = threading.Thread(target=child)
                    thread.start()
                    thread.join()
                    os._exit(0)
                await asyncio.to_thread(wait_for, pid)
                assert (await store.get("greeting", PROTOTYPE)).to_bytes() == b"good morning"
        asyncio.run(main())
        """,
        server,
    )


def read_in_child(store: ManagedStore) -> tuple[bytes, int]:
    """What a worker process does: read, and leave the store to be closed."""
    with store:
        value = sync(store.get(KEY, PROTOTYPE))
        assert value is not None
        return value.to_bytes(), os.getpid()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_process_reads_an_unpickled_copy(server: FolderServer, method: str) -> None:
    """A store sent to a process pool reads there through its own sessions; the original goes on."""
    with ManagedStore(server.url) as store:
        sync(store.get(KEY, PROTOTYPE))
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            content, pid = pool.submit(read_in_child, store).result(30)
        assert (content, pid != os.getpid()) == (CONTENT, True)
        assert server.wait_for_connections(1) == 1
        assert sync(store.exists(KEY))


def copies_of(store: ManagedStore) -> list[Any]:
    return [pickle.loads(pickle.dumps(store)), copy.copy(store), copy.deepcopy(store)]


def test_a_copy_is_equal_and_shares_nothing(server: FolderServer) -> None:
    """An unpickled copy is equal, reads through a session of its own, and is in no cache of fsspec's."""
    with ManagedStore(server.url, read_only=True, close_timeout=2.5) as store:
        sync(store.get(KEY, PROTOTYPE))
        cached = set(fsspec.get_filesystem_class("http")._cache)
        for other in copies_of(store):
            assert other == store
            assert (other.read_only, other.close_timeout, other.closed) == (True, 2.5, False)
            assert sync(other.get(KEY, PROTOTYPE)).to_bytes() == CONTENT
            assert other.fs is not store.fs
            assert other.fs._session is not store.fs._session
            assert set(fsspec.get_filesystem_class("http")._cache) == cached
            other.close()
            assert sync(store.exists(KEY))
        again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(store))))
        assert again == store


def test_a_copy_outlives_its_original(server: FolderServer) -> None:
    """Closing the original ends nothing of a copy made before."""
    store = ManagedStore(server.url)
    sync(store.get(KEY, PROTOTYPE))
    other = pickle.loads(pickle.dumps(store))
    store.close()
    assert sync(other.get(KEY, PROTOTYPE)).to_bytes() == CONTENT
    other.close()


def test_a_pickle_of_a_closed_store_is_closed(server: FolderServer) -> None:
    """Closing is final in every copy made afterwards."""
    store = ManagedStore(server.url)
    sync(store.get(KEY, PROTOTYPE))
    store.close()
    for other in copies_of(store):
        assert other.closed
        with pytest.raises(StoreClosedError):
            sync(other.get(KEY, PROTOTYPE))
        assert other.statistics().opened == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        ({"headers": {"x": "1", "y": "2"}}, {"headers": {"y": "2", "x": "1"}}),
        ({"headers": {"x": "same", "y": "same"}}, {"headers": {"x": "same", "y": "".join(["sa", "me"])}}),
        ({"headers": {"x": URL}}, {"headers": {"x": "".join(URL)}}),
        ({"location": "url"}, {"".join("location"): "".join("url")}),
        ({"block_size": 5}, {"block_size": 5, "asynchronous": True}),
    ],
    ids=["order", "nested order", "identity", "identity with the URL", "identity with a name", "redundant"],
)
def test_equal_stores_have_equal_pickles(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Stores that compare equal pickle to the same bytes, as dask's tokens need it."""
    stores = [ManagedStore(URL, storage_options=options) for options in (left, right)]
    with StorePool(storage_options=right) as pool:
        stores.append(pool.store(URL))
        assert [store == stores[0] for store in stores] == [True] * 3
        assert len({pickle.dumps(store) for store in stores}) == 1


def test_a_pickle_does_not_change_with_use(server: FolderServer) -> None:
    """Opening sessions changes nothing of what a pickle carries."""
    with ManagedStore(server.url) as store:
        before = pickle.dumps(store)
        sync(store.get(KEY, PROTOTYPE))
        asyncio.run(store.get(KEY, PROTOTYPE))
        assert pickle.dumps(store) == before
