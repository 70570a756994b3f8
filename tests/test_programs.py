"""Whole programs: notebooks whose loop is patched to be nested, and exits with reads under way in other threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs import CONTENT, KEY, Ended, run
from tests.servers import FolderServer, http_server

# What an exit may take in all, in seconds, on a busy machine: most of it is the interpreter's own start and exit.
IN_TIME = 15.0


@pytest.fixture(scope="module")
def good_server() -> Iterator[FolderServer]:
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server


@pytest.fixture(scope="module")
def hung_server() -> Iterator[FolderServer]:
    """A server that accepts, and never answers; it sees when the client closes."""
    with http_server(latency=3600) as server:
        yield server


@pytest.fixture
def server(good_server: FolderServer) -> Iterator[FolderServer]:
    """A server that answers; after the test it must see no connection."""
    yield good_server
    assert good_server.wait_for_connections(0) == 0


@pytest.fixture
def hung(hung_server: FolderServer) -> Iterator[FolderServer]:
    """The same; after the test it must see no connection."""
    yield hung_server
    assert hung_server.wait_for_connections(0) == 0


# Loops that are nested

NESTED = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about the loop of the main thread
    import nest_asyncio
async def cell():
    "What a cell of a notebook does: it runs on a loop that runs already."
    nest_asyncio.apply()
    loop = asyncio.get_running_loop()
{body}
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(cell())
wait_for_connections({left})
loop.run_until_complete(asyncio.sleep(0.01))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
wait_for_connections(0)
"""


def notebook(body: str, server: FolderServer, *, left: int = 0) -> Ended:
    """Run the body of a cell; the server must see `left` connections after it, and none when its loop has ended."""
    pytest.importorskip("nest_asyncio")
    indented = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return run(NESTED.format(body=indented, left=left), server)


CELLS = {
    "asyncio.run within the block": """
async def main(store):
    assert (await get(store)).to_bytes() == b"good morning"
with ManagedStore(URL) as store:
    asyncio.run(main(store))
    loop.run_until_complete(main(store))
    read(store)
    await get(store)
await asyncio.sleep(0.01)
""",
    "the block within asyncio.run": """
async def main():
    async with ManagedStore(URL) as store:
        await get(store)
        read(store)
        asyncio.run(inner(store))
    return store
async def inner(store):
    assert (await get(store)).to_bytes() == b"good morning"
for _ in range(2):
    store = asyncio.run(main())
    assert store.statistics().loops == 0, store
    store = loop.run_until_complete(main())
    assert store.statistics().loops == 0, store
""",
    "zarr's synchronous API within asyncio.run": """
async def main():
    with ManagedStore(URL) as store:
        try:
            zarr.open_group(store, mode="r")
        except FileNotFoundError:
            pass
        async with ManagedStore(URL) as other:
            read(store)
            await get(other)
asyncio.run(main())
""",
    "reads in flight in other tasks": """
async def main(store):
    await asyncio.gather(*(get(store) for _ in range(5)))
async with ManagedStore(URL) as store:
    reading = [asyncio.create_task(main(store)) for _ in range(3)]
    asyncio.run(main(store))
    read(store)
await asyncio.gather(*reading)
""",
    "aclose within asyncio.run": """
store = ManagedStore(URL)
await get(store)
read(store)
asyncio.run(store.aclose())
assert (store.closed, store.statistics().loops) == (True, 0)
""",
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_notebook_with_nest_asyncio(server: FolderServer, cell: str) -> None:
    """Runs within runs, and synchronous use within those: silence, and nothing open at the end of the cell."""
    ended = notebook(CELLS[cell], server)
    assert ended.quietly == (0, "")


def test_a_notebook_that_closes_in_a_later_cell(server: FolderServer) -> None:
    """With nest_asyncio a nested run does not end its loop: the session lives on until the store is closed."""
    body = """
store = ManagedStore(URL)
asyncio.run(store.get("greeting", PROTOTYPE))
opened = ask().opened
asyncio.run(store.get("greeting", PROTOTYPE))
await get(store)
assert ask().opened == opened
globals()["kept"] = store
"""
    ended = notebook(body, server, left=1)
    assert ended.code == 0
    assert "Unclosed" not in ended.errors


# The interpreter's exit with reads under way


def check_warned_alone(ended: Ended, count: int = 1) -> None:
    """It ended well and in time; stderr has the warnings of forgotten stores, and nothing else."""
    assert ended.code == 0
    assert ended.errors.count("was never closed") == count
    for word in ("Traceback", "Unclosed", "unclosed", "destroyed", "Fatal"):
        assert word not in ended.errors
    assert ended.seconds < IN_TIME


WAIT = """
while store.statistics().requests_in_flight < {count} or not ask().connections:
    time.sleep(0.01)
"""


def test_exit_with_a_read_in_a_daemon_thread(hung: FolderServer) -> None:
    """It is cut off, told so, and does not delay the exit, though the server never answers."""
    ended = run(
        "store = ManagedStore(URL, close_timeout=30)\nin_thread(read, store, daemon=True)\n" + WAIT.format(count=1),
        hung,
    )
    check_warned_alone(ended)


def test_exit_with_a_read_in_a_thread_that_python_waits_for(server: FolderServer) -> None:
    """Python waits for such threads before its exit hooks run: their reads finish, and the store is closed then."""
    program = """
    store = ManagedStore(URL)
    def reads():
        for _ in range(20):
            read(store)
            time.sleep(0.01)
        say("read")
    threading.Thread(target=reads).start()
    time.sleep(0.05)
    """
    ended = run(program, server)
    check_warned_alone(ended)
    assert ended.output == "read\n"


def test_exit_with_reads_in_a_thread_pool(server: FolderServer) -> None:
    """The same for a ThreadPoolExecutor that nobody has shut down."""
    program = """
    from concurrent.futures import ThreadPoolExecutor
    store = ManagedStore(URL)
    pool = ThreadPoolExecutor(3)
    futures = [pool.submit(read, store) for _ in range(50)]
    import atexit
    atexit.register(lambda: say(all(future.exception() is None for future in futures)))
    """
    ended = run(program, server)
    check_warned_alone(ended)
    assert ended.output == "True\n"


@pytest.mark.parametrize("leaves", ["", "raise SystemExit(0)"])
def test_a_block_left_with_a_thread_that_would_wait_for_ever(hung: FolderServer, leaves: str) -> None:
    """A thread that Python waits for, in a read that is never answered: leaving the block lets the program end."""
    program = f"""
    with ManagedStore(URL, close_timeout=0.3) as store:
        in_thread(read, store)
        while not ask().connections:
            time.sleep(0.01)
        time.sleep(0.1)
        {leaves}
    """
    ended = run(program, hung)
    assert ended.quietly == (0, "")
    assert ended.output == "StoreClosedError\n"
    assert ended.seconds < IN_TIME


@pytest.mark.parametrize("reads", ["get(store)", "use()"])
def test_exit_while_a_loop_in_another_thread_runs(hung: FolderServer, reads: str) -> None:
    """A run in a daemon thread, with a read in flight: it is cut off on that loop, which is still running."""
    program = f"""
    store = ManagedStore(URL, close_timeout=30)
    async def use():
        async with store:
            await get(store)
    def runs():
        try:
            asyncio.run({reads})
        except StoreClosedError:
            say("StoreClosedError")
    threading.Thread(target=runs, daemon=True).start()
    """
    ended = run(program + WAIT.replace("\n", "\n    ").format(count=1) + "\n    time.sleep(0.05)\n", hung)
    check_warned_alone(ended)
    assert ended.output in ("StoreClosedError\n", "")  # the exit need not wait for a daemon to say it


def test_exit_after_a_loop_was_closed_with_a_read_in_flight(hung: FolderServer) -> None:
    """A loop that ended in the wrong way, and a store that nobody holds: closed at the latest when Python exits."""
    program = """
    async def begin():
        global reading
        store = ManagedStore(URL, close_timeout=30)
        reading = asyncio.create_task(get(store))
        while not ask().connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    logging.disable()  # asyncio's own "Task was destroyed but it is pending!"
    loop = asyncio.new_event_loop()
    loop.set_debug(False)  # it would read source files when the interpreter has no import system any more
    loop.run_until_complete(begin())
    loop.close()
    """
    ended = run(program, hung)
    check_warned_alone(ended)


# Other people's hooks

HOOKS = {
    "registered before the import": ("atexit.register(hook)", ""),
    "registered after the import": ("", "atexit.register(hook)"),
    "finalizer made before the import": ("weakref.finalize(keep, hook)", ""),
    "finalizer made after the import": ("", "weakref.finalize(keep, hook)"),
}


@pytest.mark.parametrize("order", HOOKS)
def test_hooks_of_others_that_use_stores(server: FolderServer, order: str) -> None:
    """A hook that runs before this package's is served; one after it is refused what is closed; never a hang or leak.

    Hooks run last in, first out, but for finalizers: Python runs those of everybody together, after this package.
    """
    before, after = HOOKS[order]
    program = f"""
import atexit, sys, weakref
class Keep: pass
keep = Keep()
def hook():
    for use in (lambda: read(store), lambda: read(ManagedStore(URL)), lambda: store.close()):
        try:
            use()
            say("served")
        except Exception as error:
            say(type(error).__name__)
{before}
PROLOGUE
{after}
store = ManagedStore(URL)
read(store)
"""
    ended = run(program, server)
    is_first = order == "registered after the import"
    assert ended.output.split() == ["served" if is_first else "StoreClosedError", "served", "served"]
    check_warned_alone(ended, 1 if is_first else 2)  # of the one that the hook makes; and of that which it closes
