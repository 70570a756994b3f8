"""A pool and the pool of unpickled copies, at every way out: interpreter exit, signals, forks, and without secrets."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StoreCloseError, StorePool
from tests.programs import CONTENT, KEY, run, running
from tests.servers import FolderServer, http_server
from tests.timing import at_most

PROTOTYPE = default_buffer_prototype()
SECRET = "s3cr3t-of-the-user"

# The hook is registered first, so that it runs last: after this package's, while zarr's loop still runs.
HOOK_FIRST = """
import atexit
atexit.register(lambda: say_what_is_open())
PROLOGUE
import pickle
from managed_store import StorePool
"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[FolderServer]:
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def server(own_server: FolderServer) -> Iterator[FolderServer]:
    """A server that answers; after the test it must see no connection."""
    yield own_server
    assert own_server.wait_for_connections(0) == 0


@pytest.fixture(scope="module")
def hung_server() -> Iterator[FolderServer]:
    with http_server(latency=3600) as server:
        yield server


@pytest.fixture
def hung(hung_server: FolderServer) -> Iterator[FolderServer]:
    """A server that never answers; after the test it must see no connection."""
    yield hung_server
    assert hung_server.wait_for_connections(0) == 0


async def get(store: ManagedStore) -> bytes:
    """Read the key on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return value.to_bytes()


# The interpreter's exit


def test_a_pool_left_open_is_closed_at_exit(server: FolderServer) -> None:
    """Its filesystems of all loops are closed, and one warning says where it was made, whatever it held."""
    program = """
pool = StorePool()
stores = [pool.store(URL, storage_options={"headers": {"x": str(number)}}) for number in range(3)]
for store in stores:
    read(store)
runner = asyncio.Runner()
runner.run(get(stores[0]))
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(get(stores[1]), loop).result()
assert pool.statistics().filesystems == 5
"""
    ended = run(HOOK_FIRST + program, server)
    assert (ended.code, ended.output) == (0, "0 0\n")
    assert ended.errors.count("was never closed") == 1
    assert "A StorePool was never closed; it was made at" in ended.errors
    assert "program.py:" in ended.errors
    assert [word for word in ("Traceback", "Unclosed", "unclosed", "destroyed") if word in ended.errors] == []


def test_unpickled_copies_are_closed_at_exit_in_silence(server: FolderServer) -> None:
    """Nobody has made them by hand: no warning, and no connection either."""
    program = """
original = ManagedStore(URL)
copies = [pickle.loads(pickle.dumps(original)) for _ in range(3)]
for copy in copies:
    read(copy)
runner = asyncio.Runner()
runner.run(get(copies[0]))
assert ask().connections == 2
"""
    ended = run(HOOK_FIRST + program + "runner.close()\n", server)
    assert (ended.output, *ended.quietly) == ("0 0\n", 0, "")


def test_exit_with_reads_of_a_pool_in_flight(hung: FolderServer) -> None:
    """Reads are cut off at once, of a pool's stores and of copies: the process ends, whatever the server does."""
    program = """
pool = StorePool(close_timeout=30)
original = ManagedStore(URL)
stores = [pool.store(URL), pickle.loads(pickle.dumps(original))]
threads = [in_thread(read, store, daemon=True) for store in stores]
while any(not store.statistics().requests_in_flight for store in stores) or ask().connections < 2:
    time.sleep(0.01)
began = time.monotonic()
"""
    ended = run(HOOK_FIRST + program, hung)
    assert ended.code == 0
    assert ended.output.endswith("0 0\n")
    assert ended.errors.count("was never closed") == 1
    assert "Traceback" not in ended.errors
    assert ended.seconds < 25


# Signals and exceptions


def test_ctrl_c_in_the_block_of_a_pool(hung: FolderServer) -> None:
    """A read of one of its stores is never answered: Ctrl-C ends it at once, with all stores closed."""
    program = """
    from managed_store import StorePool
    try:
        with StorePool(close_timeout=30) as pool:
            thread = in_thread(read, pool.store(URL))
            read(pool.store(URL + "/other"))
    except KeyboardInterrupt:
        thread.join()
        wait_for_connections(0)
        say(pool.closed, pool.statistics().filesystems)
    """
    before = hung.requests()
    with running(program, hung) as started:
        started.wait_for_requests(hung, before + 2)
        started.pause(0.2)
        started.signal(signal.SIGINT)
        ended = started.end()
    assert ended.quietly == (0, "")
    assert ended.output == "StoreClosedError\nTrue 0\n"
    assert ended.seconds < 5


async def test_the_exception_of_the_body_of_a_pool_comes_through(server: FolderServer) -> None:
    """The very same object, from `with` and `async with`; a cancellation closes as well."""
    error = ValueError("the body failed")
    with pytest.raises(ValueError, match="the body failed") as caught:
        async with StorePool() as pool:
            await get(pool.store(server.url))
            raise error
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert pool.statistics().filesystems == 0

    def synchronously() -> StorePool:
        with pytest.raises(ValueError, match="the body failed") as caught, StorePool() as pool:
            sync(get(pool.store(server.url)))
            raise error
        assert caught.value is error
        return pool

    assert (await asyncio.to_thread(synchronously)).statistics().filesystems == 0

    pools: list[StorePool] = []

    async def main() -> None:
        async with StorePool() as pool:
            await get(pool.store(server.url))
            pools.append(pool)
            await asyncio.sleep(3600)

    task = asyncio.create_task(main())
    while not pools:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pools[0].statistics().filesystems == 0
    assert pools[0].closed


def test_a_pool_is_left_in_time(hung: FolderServer) -> None:
    """A server that never answers, many filesystems on two loops: they share one budget, and every read is told."""
    answers: list[BaseException] = []

    def reading(store: ManagedStore, runs: type | object) -> None:
        try:
            (asyncio.run if runs == "run" else sync)(get(store))
        except BaseException as error:
            answers.append(error)

    before = hung.requests()
    pool = StorePool(close_timeout=1)
    stores = [pool.store(hung.url, storage_options={"headers": {"x": str(number)}}) for number in range(4)]
    threads = [threading.Thread(target=reading, args=[store, runs]) for store in stores for runs in ("run", "sync")]
    for thread in threads:
        thread.start()
    while hung.requests() < before + 8:
        time.sleep(0.01)
    with at_most(1):
        pool.close()
    for thread in threads:
        thread.join(5)
    assert [type(answer) for answer in answers] == [StoreClosedError] * 8
    assert pool.statistics().filesystems == 0


# Forks

FORKS = """
PROLOGUE
import pickle
from managed_store import StorePool

def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def forked(work, ending):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        exec(ending)
    return wait_for(pid)
"""


@pytest.mark.parametrize("ending", ["os._exit(7)", "sys.exit(7)"])
def test_a_forked_child_opens_its_own(server: FolderServer, ending: str) -> None:
    """A child uses the pool and the copies that it inherited: its own connections, and the parent's undisturbed."""
    program = f"""
original = ManagedStore(URL)
with StorePool() as pool, pickle.loads(pickle.dumps(original)) as copy:
    store = pool.store(URL)
    read(store)
    read(copy)
    before = ask()
    assert before.connections == 2
    def child():
        from tests.footprint import Footprint
        assert Footprint.now().sockets == 0, "it holds copies of the parent's sockets"
        read(store)
        read(copy)
        read(pickle.loads(pickle.dumps(original)))
        assert Footprint.now().sockets == 2  # the copies share theirs
        pool.close()
        copy.close()
    assert forked(child, {ending!r}) == 7
    assert forked(lambda: (read(store), read(copy)), "os._exit(7)") == 7
    wait_for_connections(2)
    read(store)
    read(copy)
    after = ask()
    assert (after.connections, after.opened - before.opened) == (2, 4), (before, after)
"""
    ended = run(FORKS + program, server)
    assert ended.quietly == (0, "")


def test_forks_while_other_threads_look_for_their_sessions(server: FolderServer) -> None:
    """Wherever the other threads are in it when a process forks, no child waits for what only they could give."""
    program = """
original = ManagedStore(URL)
data = pickle.dumps(original)
stop = threading.Event()
with StorePool() as pool:
    read(pool.store(URL))
    def look():
        while not stop.is_set():
            pool.store(URL)._sessions._found_owner()
            pickle.loads(data)._sessions._found_owner()
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    def child():
        signal.alarm(30)
        read(pool.store(URL))
        read(pickle.loads(data))
    codes = [forked(child, "os._exit(7)") for _ in range(15)]
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [7] * 15, codes
wait_for_connections(0)
"""
    ended = run(FORKS + program, server)
    assert ended.quietly == (0, "")


# Secrets


def test_nothing_that_a_pool_says_shows_a_secret(
    server: FolderServer, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Its repr, statistics, warnings, logs and errors, also the one of a close that cannot end, and of its stores."""
    caplog.set_level(logging.DEBUG, logger="managed_store")
    url = server.url.replace("http://", f"http://user:{SECRET}@") + f"?token={SECRET}"
    options = {"headers": {"Authorization": SECRET}}
    said: list[object] = []
    blocked, go_on = threading.Event(), threading.Event()
    pool = StorePool(storage_options=options, close_timeout=0.2)
    store = pool.store(f"{server.url}/?token={SECRET}", storage_options={"client_kwargs": {"auth": None}})
    named = pool.store(url)

    async def main() -> None:
        with pytest.raises(Exception):  # noqa: B017 - whatever: this server knows no such user
            await named.get(KEY, PROTOTYPE)
            raise RuntimeError
        await asyncio.to_thread(said.append, repr(pool))
        blocked.set()
        go_on.wait(20)
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    blocked.wait(20)
    said += [repr(pool), str(pool), pool.statistics(), repr(store), str(named), repr(named), named.statistics()]
    said += [repr(each) for each in (named._sessions, pool._pool, pool._pool._all_owners(), pool._pool.sessions())]
    with pytest.raises(TypeError) as pickling:
        pickle.dumps(pool)
    with pytest.raises(StoreCloseError) as closing:
        pool.close()
    with pytest.raises(StoreClosedError) as closed:
        pool.store(url)
    with pytest.raises(StoreClosedError) as used:
        sync(get(named))
    go_on.set()
    thread.join(20)
    said += [str(each.value) for each in (pickling, closing, closed, used)]

    forgotten = StorePool(storage_options=options)
    sync(get(forgotten.store(f"{server.url}/")))
    del forgotten
    gc.collect()
    warned = [str(each.message) for each in recwarn if each.category is ResourceWarning]
    assert [message.startswith("A StorePool was never closed") for message in warned] == [True]
    said += warned
    said += [record.getMessage() for record in caplog.records if record.name.startswith("managed_store")]
    assert len(said) > 15
    assert [each for each in said if SECRET in str(each)] == []
