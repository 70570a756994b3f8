"""Ctrl-C and SIGTERM: they are answered at once, and every connection is closed, whatever the server does."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.programs import CONTENT, KEY, Ended, run, running
from tests.servers import FolderServer, http_server

# What an answer to Ctrl-C may take in all, in seconds: most of it is the interpreter's own exit, on a busy machine.
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


def interrupted(
    program: str,
    server: FolderServer,
    *others: FolderServer,
    number: signal.Signals = signal.SIGINT,
    requests: int = 1,
    said: str = "",
    times: int = 1,
) -> Ended:
    """Run a program until `server` has been asked, and it has said something; then send it a signal."""
    before = server.requests()
    with running(program, *others, server) as started:
        started.wait_for_requests(server, before + requests)
        started.wait_until_said(said)
        started.pause(0.2)  # from the word to the wait that follows it
        for _ in range(times):
            started.signal(number)
            started.pause(0.03 if times > 1 else 0)
        return started.end()


def assert_interrupted(ended: Ended) -> None:
    """The program has ended at once, by itself or by a signal, and stderr shows nothing but KeyboardInterrupt."""
    assert ended.code in (0, -signal.SIGINT, 130)
    assert ended.errors.count("Traceback") == ended.errors.count("\nKeyboardInterrupt")
    for word in ("Warning", "never", "Unclosed", "ignored", "destroyed"):
        assert word not in ended.errors
    assert ended.seconds < AT_ONCE


# In a read


@pytest.mark.parametrize("use", ["read(store)", "zarr.open_group(store, mode='r')", "store.fs, read(store)"])
def test_ctrl_c_in_a_read(hung: FolderServer, use: str) -> None:
    """A read that is never answered ends with KeyboardInterrupt at once, and stderr shows that alone."""
    ended = interrupted(f"with ManagedStore(URL, close_timeout=30) as store:\n    {use}", hung)
    assert ended.code in (-signal.SIGINT, 130)
    assert ended.errors.splitlines()[-1] == "KeyboardInterrupt"
    assert ended.errors.count("Traceback") == 1
    assert "Warning" not in ended.errors
    assert ended.seconds < AT_ONCE


def test_ctrl_c_in_a_read_that_the_program_goes_on_after(hung: FolderServer) -> None:
    """A program that catches it finds the store closed, its statistics at zero, and stderr empty."""
    program = """
    try:
        with ManagedStore(URL, close_timeout=30) as store:
            read(store)
    except KeyboardInterrupt as error:
        wait_for_connections(0)
        statistics = store.statistics()
        say(store.closed, statistics.loops, statistics.requests_in_flight, getattr(error, "__notes__", []))
    """
    ended = interrupted(program, hung)
    assert ended.quietly == (0, "")
    assert ended.output == "True 0 0 []\n"
    assert ended.seconds < AT_ONCE


def test_ctrl_c_with_reads_in_many_threads(hung: FolderServer) -> None:
    """Reads of other threads are cut off with the one of the main thread; they are told that the store was closed."""
    program = """
    try:
        with ManagedStore(URL, close_timeout=30) as store:
            threads = [in_thread(read, store) for _ in range(4)]
            read(store)
    except KeyboardInterrupt:
        for thread in threads:
            thread.join()
        wait_for_connections(0)
    """
    ended = interrupted(program, hung, requests=5)
    assert ended.quietly == (0, "")
    assert ended.output.split() == ["StoreClosedError"] * 4
    assert ended.seconds < AT_ONCE


# While it is being closed

WAYS_TO_WAIT = {
    "close": ("read", "store = ManagedStore(URL, close_timeout=30)\n    begin()\n    store.close()", "NoneType"),
    "leaving": ("read", "with ManagedStore(URL, close_timeout=30) as store:\n        begin()", "NoneType"),
    "leaving after an error": (
        "write",
        "with ManagedStore(URL, close_timeout=30) as store:\n        begin()\n        raise ValueError",
        "ValueError",
    ),
}


CLOSING = """
requests = {{"read": read, "write": lambda store: sync(put(store))}}
def begin():
    global thread
    thread = in_thread(requests["{what}"], store)
    while not store.statistics().requests_in_flight or not ask().connections:
        time.sleep(0.01)
    say("closing")
try:
    {closing}
except KeyboardInterrupt as error:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # another one comes too late for what is tried here
    say(type(error.__context__).__name__)
thread.join()
wait_for_connections(0)
say(store.closed, store.statistics().loops)
"""


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_ctrl_c_while_the_store_is_being_closed(hung: FolderServer, way: str) -> None:
    """Closing waits for a request that is never answered: Ctrl-C cuts it off, and nothing is left open.

    After an error of the body, which gives time to writes alone, that error is the context of the KeyboardInterrupt.
    """
    what, closing, context = WAYS_TO_WAIT[way]
    ended = interrupted(CLOSING.format(what=what, closing=closing), hung, said="closing")
    assert ended.quietly == (0, "")
    assert sorted(ended.output.split("\n")) == sorted(["", "closing", context, "StoreClosedError", "True 0"])
    assert ended.seconds < AT_ONCE


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_ctrl_c_twice_while_the_store_is_being_closed(hung: FolderServer, way: str) -> None:
    """The second comes at any moment of what the first has begun: the program ends by the one or by the other."""
    what, closing, _ = WAYS_TO_WAIT[way]
    ended = interrupted(CLOSING.format(what=what, closing=closing), hung, said="closing", times=2)
    assert_interrupted(ended)


def test_closing_again_after_ctrl_c_waits_for_a_loop_that_is_busy(good: FolderServer) -> None:
    """Struck while it waits for zarr's loop, `close` leaves the rest to that loop; the next `close` waits for it."""
    program = """
    from tests.footprint import Footprint
    from zarr.core.sync import loop
    def be_busy(turns):
        time.sleep(0.1)
        if turns:
            loop[0].call_soon(be_busy, turns - 1)
        else:
            done.set()
    done = threading.Event()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    store = ManagedStore(URL)
    read(store)
    loop[0].call_soon_threadsafe(be_busy, 15)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        store.close()
    except KeyboardInterrupt:
        say("struck")
    store.close()
    say(store.statistics().loops, Footprint.now().sockets)
    done.wait()  # zarr's own exit gives its loop little time
    """
    ended = run(program, good)
    assert (ended.output, *ended.quietly) == ("struck\n0 0\n", 0, "")


def test_ctrl_c_that_nobody_catches_while_the_store_is_being_closed(hung: FolderServer) -> None:
    """The program ends by the signal at once, though a thread of it was in a read."""
    program = """
    with ManagedStore(URL, close_timeout=30) as store:
        thread = in_thread(read, store)
        while not store.statistics().requests_in_flight or not ask().connections:
            time.sleep(0.01)
        say("closing")
    """
    ended = interrupted(program, hung, said="closing")
    assert ended.code in (-signal.SIGINT, 130)
    assert ended.output.split() == ["closing", "StoreClosedError"]
    assert ended.errors.splitlines()[-1] == "KeyboardInterrupt"
    assert ended.seconds < AT_ONCE


# In a run of asyncio


IN_A_RUN = """
async def main():
    async with ManagedStore(URL, close_timeout=30) as store:
        await get(store)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait_for_connections(0)
    say("interrupted")
"""


def test_ctrl_c_in_a_run(hung: FolderServer) -> None:
    """The main task is cancelled inside `async with`; the run ends with KeyboardInterrupt, with all closed."""
    ended = interrupted(IN_A_RUN, hung)
    assert ended.quietly == (0, "")
    assert ended.output == "interrupted\n"
    assert ended.seconds < AT_ONCE


LEAVING_A_RUN = """
async def attempt(store):
    try:
        await get(store)
    except BaseException as error:
        say(type(error).__name__)
async def main():
    global store
    async with ManagedStore(URL, close_timeout=30) as store:
        reading = asyncio.create_task(attempt(store))
        while not ask().connections:
            await asyncio.sleep(0.01)
        say("leaving")
try:
    asyncio.run(main())
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait_for_connections(0)
    say("interrupted", store.statistics().loops)
"""


def test_ctrl_c_while_leaving_a_block_in_a_run(hung: FolderServer) -> None:
    """`async with` waits for a read that is never answered: Ctrl-C cuts it off."""
    ended = interrupted(LEAVING_A_RUN, hung, said="leaving")
    assert ended.quietly == (0, "")
    assert ended.output.split() == ["leaving", "StoreClosedError", "interrupted", "0"]
    assert ended.seconds < AT_ONCE


@pytest.mark.parametrize("program", [IN_A_RUN, LEAVING_A_RUN], ids=["body", "leaving"])
def test_ctrl_c_twice_in_a_run(hung: FolderServer, program: str) -> None:
    """asyncio answers the second by raising KeyboardInterrupt wherever the loop is, also while it closes the store."""
    ended = interrupted(program, hung, said="leaving" if program is LEAVING_A_RUN else "", times=2)
    assert_interrupted(ended)


# At any moment

# Struck just before its block begins, a store is dropped; struck just before it is awaited, a coroutine is.
STRUCK = ("-W", "ignore::ResourceWarning", "-W", "ignore:coroutine:RuntimeWarning")


CLOSED_BY = {
    "a store": "closed = store = ManagedStore(URL)",
    "a pool": "closed = StorePool(); store = closed.store(URL)",
}


@pytest.mark.parametrize("what", CLOSED_BY)
def test_ctrl_c_at_every_line_of_closing(good: FolderServer, what: str) -> None:
    """Wherever in this package it strikes, nothing is open a moment after what was being closed has been dropped."""
    program = f"""
    from managed_store import StorePool
    sync(asyncio.sleep(0))
    def make():
        {CLOSED_BY[what]}
        read(store)
        return closed
    def interrupted(function, number):
        "Call a function; at the `number`th line of this package that it runs, Ctrl-C strikes. Return that line."
        struck = []
        def trace(frame, event, argument):
            nonlocal number
            if f"{{os.sep}}managed_store{{os.sep}}" not in frame.f_code.co_filename:
                return None
            if event == "line":
                number -= 1
                if number == 0:
                    sys.settrace(None)
                    struck.append(f"{{os.path.basename(frame.f_code.co_filename)}}:{{frame.f_lineno}}")
                    raise KeyboardInterrupt
            return trace
        sys.settrace(trace)
        try:
            function()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        return struck
    left, number = [], 0
    while True:
        closed = make()
        number += 1
        line = interrupted(closed.close, number)
        del closed
        for _ in range(100):
            if ask().connections == len(left):
                break
            time.sleep(0.003)
        else:
            left += line
        if not line:
            break
    say(number > 20, *left)
    """
    with running(program, good, options=STRUCK) as started:
        ended = started.end(within=100)
    assert (ended.output, *ended.quietly) == ("True\n", 0, "")


def test_a_storm_of_ctrl_c(good: FolderServer) -> None:
    """Ctrl-C at random moments of closing: zarr's loop goes on, and whatever the moment all is closed afterwards."""
    program = """
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sync(asyncio.sleep(0))
    struck, timer_off = 0, functools.partial(signal.setitimer, signal.ITIMER_REAL, 0)
    for number in range(200):
        with ManagedStore(URL) as other:
            read(other)
            store = ManagedStore(URL)
            read(store)
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00001 + 0.00002 * number)
                    store.close()
                finally:
                    timer_off()
            except KeyboardInterrupt:
                struck += 1
            timer_off()
            store.close()
            assert store.statistics().loops == 0
            read(other)
    say(struck > 20, seen_connections(0))
    """
    with running(program, good, options=STRUCK) as started:
        ended = started.end(within=100)
    assert (ended.output, ended.code) == ("True 0\n", 0)
    # Struck in the finalizer of whatever object, Python shows and ignores it.
    assert ended.errors.count("Traceback") == ended.errors.count("KeyboardInterrupt")
    assert [word for word in ("Unclosed", "Warning", "never", "destroyed") if word in ended.errors] == []
