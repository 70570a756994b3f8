"""SIGTERM, and handlers that close, drop and collect stores while the main thread is somewhere else."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.programs import CONTENT, KEY, Ended, run, running
from tests.servers import FolderServer, http_server

# What an answer to a signal may take in all, in seconds: most of it is the interpreter's own exit, on a busy machine.
AT_ONCE = 12.0


@pytest.fixture(scope="module")
def hung_server() -> Iterator[FolderServer]:
    """A server that accepts, and never answers; it sees when the client closes."""
    with http_server(latency=3600) as server:
        yield server


@pytest.fixture(scope="module")
def good_server() -> Iterator[FolderServer]:
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture
def hung(hung_server: FolderServer) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection."""
    yield hung_server
    assert hung_server.wait_for_connections(0) == 0


@pytest.fixture
def good(good_server: FolderServer) -> Iterator[FolderServer]:
    """A server that answers; after the test it must see no connection."""
    yield good_server
    assert good_server.wait_for_connections(0) == 0


def terminated(program: str, hung: FolderServer, *others: FolderServer, said: str = "") -> Ended:
    """Run a program until `hung` has been asked, and it has said something; then send it SIGTERM."""
    before = hung.requests()
    with running(program, *others, hung) as started:
        started.wait_for_requests(hung, before + 1)
        started.wait_until_said(said)
        started.pause(0.2)  # from the word to the wait that follows it
        started.signal(signal.SIGTERM)
        return started.end()


IN_A_READ = """
with ManagedStore(HUNG, close_timeout=30) as store:
    read(store)
"""
EXITING_HANDLER = """
def handler(number, frame):
    raise SystemExit(4)
signal.signal(signal.SIGTERM, handler)
import atexit
atexit.register(say_what_is_open)
"""
IN_A_RUN = """
async def main():
    async with ManagedStore(HUNG, close_timeout=30) as store:
        await get(store)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [IN_A_READ, IN_A_RUN], ids=["sync", "async"])
def test_sigterm_by_default(hung: FolderServer, program: str) -> None:
    """Python does nothing of its own: the process is gone with its connections, without a word."""
    ended = terminated(program, hung)
    assert ended.quietly == (-signal.SIGTERM, "")
    assert ended.seconds < AT_ONCE


@pytest.mark.parametrize("program", [IN_A_READ, IN_A_RUN], ids=["sync", "async"])
def test_a_handler_that_exits(hung: FolderServer, program: str) -> None:
    """SystemExit is raised where the main thread waits: the block is left by it, and the exit code is its own."""
    ended = terminated(EXITING_HANDLER + program, hung)
    assert ended.quietly == (4, "")
    assert ended.output == "0 0\n"
    assert ended.seconds < AT_ONCE


def test_a_handler_that_exits_while_the_store_is_being_closed(hung: FolderServer) -> None:
    """SystemExit in the middle of closing: what is in flight is cut off, and the exit code is its own."""
    program = """
    def handler(number, frame):
        sys.exit(4)
    signal.signal(signal.SIGTERM, handler)
    with ManagedStore(HUNG, close_timeout=30) as store:
        thread = in_thread(read, store)
        while not store.statistics().requests_in_flight or not ask().connections:
            time.sleep(0.01)
        say("closing")
    """
    ended = terminated(program, hung, said="closing")
    assert ended.quietly == (4, "")
    assert ended.output.split() == ["closing", "StoreClosedError"]
    assert ended.seconds < AT_ONCE


def test_a_handler_that_closes_the_store_while_the_main_thread_reads_from_it(hung: FolderServer) -> None:
    """The handler waits for the read, as `close` does, then cuts it off: the read below it says so."""
    program = """
    store = ManagedStore(HUNG, close_timeout=0.5)
    signal.signal(signal.SIGTERM, lambda number, frame: store.close())
    try:
        read(store)
    except StoreClosedError as error:
        say(type(error).__name__, store.statistics().loops)
    wait_for_connections(0)
    """
    ended = terminated(program, hung)
    assert ended.quietly == (0, "")
    assert ended.output == "StoreClosedError 0\n"
    assert ended.seconds < 0.5 + AT_ONCE


def test_a_handler_that_closes_the_store_while_another_close_waits(hung: FolderServer) -> None:
    """`close` within `close`, on one thread: both end in time, with the store closed."""
    program = """
    store = ManagedStore(HUNG, close_timeout=1)
    def handler(number, frame):
        store.close()
        say("handler", store.statistics().loops)
    signal.signal(signal.SIGTERM, handler)
    thread = in_thread(read, store)
    while not store.statistics().requests_in_flight or not ask().connections:
        time.sleep(0.01)
    say("closing")
    store.close()
    thread.join()
    say("main", store.statistics().loops)
    """
    ended = terminated(program, hung, said="closing")
    assert ended.quietly == (0, "")
    assert sorted(ended.output.splitlines()) == ["StoreClosedError", "closing", "handler 0", "main 0"]
    assert ended.seconds < 1 + AT_ONCE


def test_a_handler_that_closes_the_store_of_a_running_loop(hung: FolderServer) -> None:
    """Python runs the handler on the loop's own thread, while the loop sleeps: the read is cut off at once."""
    program = """
    async def main():
        store = ManagedStore(HUNG, close_timeout=30)
        signal.signal(signal.SIGTERM, lambda number, frame: store.close())
        try:
            await get(store)
        except StoreClosedError:
            say("StoreClosedError")
        await asyncio.sleep(0.01)  # the turns in which the sockets close
        wait_for_connections(0)
        say(store.statistics().loops)
    asyncio.run(main())
    """
    ended = terminated(program, hung)
    assert ended.quietly == (0, "")
    assert ended.output.split() == ["StoreClosedError", "0"]
    assert ended.seconds < AT_ONCE


@pytest.mark.parametrize("stop", ["task.cancel", "store.close"])
def test_a_handler_of_the_loop(hung: FolderServer, stop: str) -> None:
    """`loop.add_signal_handler`, as services stop: cancelling the main task or closing the store ends it at once."""
    program = f"""
    async def main():
        task = asyncio.current_task()
        async with ManagedStore(HUNG, close_timeout=30) as store:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, {stop})
            await get(store)
    try:
        asyncio.run(main())
    except (asyncio.CancelledError, StoreClosedError) as error:
        say(type(error).__name__)
    wait_for_connections(0)
    """
    ended = terminated(program, hung)
    assert ended.quietly == (0, "")
    assert ended.output.split() == ["CancelledError" if stop == "task.cancel" else "StoreClosedError"]
    assert ended.seconds < AT_ONCE


# Handlers that drop and collect


@pytest.mark.parametrize("waits", ["read(other)", "closing"])
@pytest.mark.parametrize("drop", ["stores.clear()", "gc.collect()"])
def test_a_handler_that_drops_the_last_handle(hung: FolderServer, good: FolderServer, waits: str, drop: str) -> None:
    """Inside a read or a close of another store the main thread holds no lock that dropping one would want."""
    cycle = "stores[0].cycle = stores[0]; stores.clear()" if drop == "gc.collect()" else "pass"
    wait = "store_is_closed(other)" if waits == "closing" else waits
    program = f"""
    gc.disable()
    stores = [ManagedStore(URL)]
    read(stores[0])
    wait_for_connections(1)
    {cycle}
    def handler(number, frame):
        {drop}
        wait_for_connections(0)
        say("dropped")
    signal.signal(signal.SIGTERM, handler)
    def store_is_closed(store):
        in_thread(read, store)
        while not store.statistics().requests_in_flight:
            time.sleep(0.01)
        store.close()
    def stop():
        while gc.garbage or ask().connections:
            time.sleep(0.01)
        other.close()
    other = ManagedStore(HUNG, close_timeout=1)
    threading.Thread(target=stop).start()
    try:
        {wait}
    except StoreClosedError:
        pass
    """
    ended = terminated(program, hung, good)
    assert ended.code == 0
    assert "dropped" in ended.output
    assert ended.errors.count("was never closed") == 1
    assert "Traceback" not in ended.errors
    assert ended.seconds < 1 + AT_ONCE


def test_a_storm_of_handlers_that_drop_and_collect(good: FolderServer) -> None:
    """Stores are dropped and collected at any moment of opening, reading and closing others: it never hangs."""
    program = """
    import warnings
    warnings.simplefilter("ignore", ResourceWarning)
    sync(asyncio.sleep(0))
    dropped = 0
    def strike(*args):
        global dropped
        if stores:
            stores.popleft()
            gc.collect(1)
            dropped += 1
    from collections import deque
    stores = deque()
    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
    async def main():
        async with ManagedStore(URL) as store:
            await get(store)
            stores.append(ManagedStore(URL))
            await get(stores[-1])
    for number in range(60):
        store = ManagedStore(URL)
        read(store)
        stores.append(store)
        store.cycle = store if number % 2 else None
        with ManagedStore(URL) as store:
            read(store)
        if number % 6 == 0:
            asyncio.run(main())
    signal.setitimer(signal.ITIMER_REAL, 0)
    del store
    stores.clear()
    gc.collect()
    wait_for_connections(0)
    say(dropped > 30)
    """
    ended = run(program, good)
    assert (ended.output, *ended.quietly) == ("True\n", 0, "")


# sys.exit


def test_sys_exit_in_the_body_in_a_thread(good: FolderServer) -> None:
    """It ends the thread alone; the store is closed when the thread has ended."""
    program = """
    stores = []
    def body():
        with ManagedStore(URL) as store:
            stores.append(store)
            read(store)
            sys.exit(3)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    wait_for_connections(0)
    say(stores[0].closed, stores[0].statistics().loops)
    """
    ended = run(program, good)
    assert (ended.output, *ended.quietly) == ("True 0\n", 0, "")


@pytest.mark.parametrize("task", ["main()", "other()"])
def test_sys_exit_in_the_body_in_a_coroutine(good: FolderServer, task: str) -> None:
    """It ends the run, from the main task or from another one, with its own code and the store closed."""
    program = f"""
    import atexit
    async def main():
        async with ManagedStore(URL) as store:
            await get(store)
            sys.exit(3)
    async def other():
        await asyncio.gather(asyncio.create_task(main()), asyncio.sleep(5))
    atexit.register(say_what_is_open)
    asyncio.run({task})
    """
    ended = run(program, good)
    assert ended.output == "0 0\n"
    assert ended.code == 3
    # A task that raises SystemExit is shown by asyncio itself when nobody has awaited it.
    assert ended.errors == "" or "SystemExit: 3" in ended.errors
    assert "Unclosed" not in ended.errors
    assert "never closed" not in ended.errors
