"""A pool in programs of their own: forked, spawned, interrupted, and left open when the interpreter exits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs import CONTENT, KEY, Ended, run, running
from tests.servers import FolderServer, http_server

PROLOGUE = """
PROLOGUE
import multiprocessing, pickle
from managed_store import StorePool

def wait_for(pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, code

def read_many(stores):
    from managed_store._leases import PROCESS_POOL
    for store in stores:
        read(pickle.loads(pickle.dumps(store)))
    return PROCESS_POOL.statistics().opened
"""


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FolderServer]:
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def server(shared_server: FolderServer) -> Iterator[FolderServer]:
    """A server that must see no connection after each test."""
    yield shared_server
    assert shared_server.wait_for_connections(0) == 0


def run_main(main: str, server: FolderServer) -> Ended:
    body = "".join(f"    {line}\n" for line in main.strip("\n").split("\n"))
    with running(f"{PROLOGUE}\nif __name__ == '__main__':\n{body}", server) as program:
        return program.end(within=60)


def test_a_fork_with_a_pool_open(server: FolderServer) -> None:
    """The child has its own sessions; the parent's connection is used by the parent alone, and closed by it."""
    program = """
with StorePool() as pool:
    store = pool.store(URL)
    read(store)
    opened = ask().opened
    for close in (False, True):
        pid = os.fork()
        if pid == 0:
            assert (pool.statistics().filesystems, store.closed) == (0, False)
            read(store)
            read(pool.store(URL + "/"))
            assert ask().opened == opened + 1 + close, ask()
            assert pool.statistics().filesystems == 1
            if close:
                pool.close()
                try:
                    read(store)
                except StoreClosedError:
                    os._exit(0)
            os._exit(not close and 0)
        wait_for(pid)
    filesystem = store.fs
    read(store)
    assert store.fs is filesystem
    wait_for_connections(1)
    assert ask().opened == opened + 2
"""
    assert run_main(program, server).quietly == (0, "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing(server: FolderServer, method: str) -> None:
    """They run no exit hooks, and get stores by pickle: one session each, which goes with them."""
    program = f"""
context = multiprocessing.get_context("{method}")
with StorePool() as pool:
    stores = [pool.store(URL) for _ in range(100)]
    read(stores[0])
    with context.Pool(1) as workers:
        assert workers.map(read_many, [stores] * 2) == [1, 1]
        workers.close()
        workers.join()
    filesystem = stores[1].fs
    read(stores[1])
    assert stores[1].fs is filesystem
    wait_for_connections(1)
"""
    assert run_main(program, server).quietly == (0, "")


@pytest.mark.parametrize("used", [True, False])
def test_a_pool_left_open_at_exit(server: FolderServer, used: bool) -> None:
    """It is closed before zarr's loop stops, and warned of once, by the line that made it, if something was open."""
    program = f"""
    from managed_store import StorePool
    pool = StorePool()
    stores = [pool.store(URL), pool.store(URL, storage_options={{"headers": {{"X-Token": "hunter2"}}}})]
    for store in stores if {used} else ():
        read(store)
    """
    ended = run(program, server)
    assert ended.code == 0
    warned = [line for line in ended.errors.splitlines() if "was never closed" in line]
    assert len(warned) == used
    assert all("program.py" in line and "A StorePool" in line for line in warned)
    assert "Traceback" not in ended.errors
    assert "hunter" not in ended.errors


@pytest.mark.parametrize("how", ["raise KeyboardInterrupt", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_leaving_the_block_by_a_signal_or_an_exit(server: FolderServer, how: str) -> None:
    """The pool is closed all the same, on all loops."""
    program = f"""
    from managed_store import StorePool
    try:
        with asyncio.Runner() as runner, StorePool() as pool:
            store = pool.store(URL)
            read(store)
            runner.run(get(store))
            {how}
            time.sleep(5)
    except (KeyboardInterrupt, SystemExit):
        assert pool.closed and pool.statistics().filesystems == 0
        wait_for_connections(0)
    """
    assert run(program, server).quietly == (0, "")
