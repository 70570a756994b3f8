"""Forked and spawned workers, as servers see them: own connections, closed at their end, and a parent undisturbed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs import CONTENT, KEY, Ended, run
from tests.servers import FolderServer, http_server

# What the programs below have in common. Numbers of connections are counted from the moment of `begin`.
HELPERS = """
PROLOGUE
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def begin(store):
    "Read, so that the parent has one connection, and remember what the server has seen until then."
    global before
    read(store)
    before = ask()
    assert before.connections == 1, before

def check_undisturbed(store, opened, requests):
    "The children have opened and asked this much and are gone; the parent goes on with its own connection."
    wait_for_connections(1)
    now = ask()
    assert (now.opened - before.opened, now.requests - before.requests) == (opened, requests), (before, now)
    filesystem = store.fs
    for _ in range(3):
        read(store)
    now = ask()
    assert (now.connections, now.opened - before.opened) == (1, opened), (before, now)
    assert store.fs is filesystem
    statistics = store.statistics()
    assert (statistics.loops, statistics.opened, statistics.forced) == (1, 1, 0), statistics

def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def forked(work):
    "Do it in a forked child, which must know how to end."
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(99)  # it should not come here
    return pid

def read_and_leave(store):
    with store:
        read(store)
    return os.getpid()

def read_and_forget(store):
    read(store)
    return os.getpid()
"""
MAIN = "\nif __name__ == '__main__':\n"


@pytest.fixture(scope="module", params=["http", "https"])
def either_server(request: pytest.FixtureRequest) -> Iterator[FolderServer]:
    with http_server(tls=request.param == "https") as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def server(either_server: FolderServer) -> Iterator[FolderServer]:
    """A server, also over TLS, where a byte of a child would end the parent's connection; it must see none after."""
    yield either_server
    assert either_server.wait_for_connections(0) == 0


@pytest.fixture(scope="module")
def slow_server() -> Iterator[FolderServer]:
    """A server that takes its time for each answer, so that there are reads in flight when a process forks."""
    with http_server(latency=0.5) as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def slow(slow_server: FolderServer) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection."""
    yield slow_server
    assert slow_server.wait_for_connections(0) == 0


def check(program: str, server: FolderServer) -> Ended:
    """Run the main part of a program; it must end well and in silence."""
    body = "".join(f"    {line}\n" for line in program.strip("\n").split("\n"))
    ended = run(HELPERS + MAIN + body, server)
    assert ended.quietly == (0, "")
    return ended


ENDINGS = {
    "os._exit": ("os._exit(7)", 7),
    "sys.exit": ("sys.exit(7)", 7),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -15),
}


def test_every_ending_of_a_forked_child(server: FolderServer) -> None:
    """However a child ends, idle, with a session open, or after it has closed: the parent's connection is its own."""
    program = f"""
with ManagedStore(URL) as store:
    begin(store)
    uses = [lambda: None, lambda: read(store), lambda: (read(store), store.close()), lambda: store.close()]
    for ending, code in {list(ENDINGS.values())}:
        for use in uses:
            def child():
                use()
                exec(ending)
            assert wait_for(forked(child)) == code, (ending, code)
    check_undisturbed(store, 8, 8)
"""
    check(program, server)


def test_a_forked_child_that_forgets_the_store_is_warned(server: FolderServer) -> None:
    """A child that reads and exits with its own session open is told so, once; the session is closed all the same."""
    program = """
store = ManagedStore(URL)
begin(store)
def child():
    read(store)
    sys.exit(7)
assert wait_for(forked(child)) == 7
check_undisturbed(store, 1, 1)
store.close()
"""
    ended = run(HELPERS + MAIN + program.replace("\n", "\n    "), server)
    assert ended.code == 0
    assert ended.errors.count("was never closed") == 1
    assert "Traceback" not in ended.errors


def test_a_child_that_leaves_the_block_too(server: FolderServer) -> None:
    """A fork inside `with`: the child leaves the block as the parent does, with an exception and without one."""
    program = """
for raises in (False, True):
    for uses in (False, True):
        try:
            with ManagedStore(URL) as store:
                begin(store)
                pid = os.fork()
                if pid == 0:
                    if uses:
                        read(store)
                    if raises:
                        raise ValueError
                else:
                    assert wait_for(pid) == 7
                    check_undisturbed(store, uses, uses)
        except ValueError:
            pass
        if pid == 0:
            assert (store.closed, store.statistics().loops) == (True, 0)
            os._exit(7)
        wait_for_connections(0)
"""
    check(program, server)


def test_a_child_that_leaves_an_asynchronous_block_too(server: FolderServer) -> None:
    """A fork by a coroutine inside `async with`: the child leaves the block on its copy of the loop."""
    program = """
async def main():
    async with ManagedStore(URL) as store:
        await get(store)
        opened = ask().opened
        pid = os.fork()
        if pid:
            assert await asyncio.to_thread(wait_for, pid) == 7
            for _ in range(3):
                await get(store)
            assert ask().opened == opened
    if pid == 0:
        os._exit(7)
asyncio.run(main())
"""
    check(program, server)


def test_grandchildren(server: FolderServer) -> None:
    """A child with a session of its own forks again: the grandchild has the third one, and disturbs neither."""
    program = """
with ManagedStore(URL) as store:
    begin(store)
    def child():
        read(store)
        opened = ask().opened
        def grandchild():
            read_and_leave(store)
            os._exit(7)
        assert wait_for(forked(grandchild)) == 7
        read(store)
        assert ask().opened == opened + 1
        store.close()
        os._exit(7)
    assert wait_for(forked(child)) == 7
    check_undisturbed(store, 2, 3)
"""
    check(program, server)


@pytest.mark.parametrize(
    ("either_server", "method"),
    [("http", "fork"), ("https", "fork"), ("http", "forkserver"), ("http", "spawn")],
    indirect=["either_server"],
)
def test_workers_of_multiprocessing(server: FolderServer, method: str) -> None:
    """`Process`, `Pool` and `ProcessPoolExecutor`, each with a store that is left and with one that is forgotten.

    They run no inherited exit hooks. The parent holds a session all the while.
    """
    program = f"""
context = multiprocessing.get_context("{method}")
with ManagedStore(URL) as store:
    begin(store)
    processes = [context.Process(target=work, args=[store]) for work in (read_and_leave, read_and_forget)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with context.Pool(1) as pool:
        pids = pool.map(read_and_forget, [store] * 2)
        pids += pool.map(read_and_leave, [store])
        pool.close()
        pool.join()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pids += [pool.submit(work, store).result() for work in (read_and_leave, read_and_forget)]
    assert os.getpid() not in pids
    wait_for_connections(1)
    requests = 7
    opened = ask().opened - before.opened
    assert opened == 5, opened  # one a process, which forgotten copies share; and one more after it was left
    check_undisturbed(store, opened, requests)
    if "{method}" == "forkserver":  # it outlives its children, and would hold the test's pipes
        from multiprocessing import forkserver
        forkserver._forkserver._stop()
"""
    check(program, server)


def test_a_worker_that_is_killed_in_a_read(slow: FolderServer) -> None:
    """SIGKILL in the middle of a read: the kernel closes the child's connection; the parent's answer comes."""
    program = """
with ManagedStore(URL) as store:
    read(store)
    requests = ask().requests
    pid = forked(lambda: read(store))
    thread = in_thread(read, store)
    while ask().requests < requests + 2:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(pid) == -9
    wait_for_connections(1)
    thread.join()
    read(store)
    assert ask().connections == 1
"""
    ended = check(program, slow)
    assert ended.output == ""  # what a thread of the parent's would have raised


@pytest.mark.parametrize("ends", ["os._exit(7)", "sys.exit(7)"])
def test_a_fork_while_reads_are_in_flight_on_zarrs_loop(slow: FolderServer, ends: str) -> None:
    """The parent's answers come to the parent; the child, whose copy of that loop is dead, reads for itself."""
    program = f"""
with ManagedStore(URL) as store:
    threads = [in_thread(read, store) for _ in range(5)]
    while ask().requests < 5:
        time.sleep(0.01)
    opened = ask().opened
    def child():
        assert store.statistics().requests_in_flight == 0
        read_and_leave(store)
        {ends}
    pid = forked(child)
    for thread in threads:
        thread.join()
    assert wait_for(pid) == 7
    wait_for_connections(5)
    read(store)
    assert ask().opened == opened + 1
"""
    before = slow.requests()
    ended = check(program.replace("requests < 5", f"requests < {before} + 5"), slow)
    assert ended.output == ""


def test_a_fork_while_reads_are_in_flight_on_the_callers_loop(slow: FolderServer) -> None:
    """A coroutine forks while other tasks of its loop read: their answers come, and the child reads in a new loop."""
    program = """
async def main():
    async with ManagedStore(URL) as store:
        requests = ask().requests
        reading = [asyncio.create_task(get(store)) for _ in range(5)]
        while ask().requests < requests + 5:
            await asyncio.sleep(0.01)
        def child():
            def runs():
                asyncio.run(get(store))
                os._exit(7)
            threading.Thread(target=runs).start()
            time.sleep(10)
        opened = ask().opened
        pid = forked(child)
        values = await asyncio.gather(*reading)
        assert [value.to_bytes() for value in values] == [b"good morning"] * 5
        assert await asyncio.to_thread(wait_for, pid) == 7
        await get(store)
        assert ask().opened == opened + 1
asyncio.run(main())
"""
    check(program, slow)
