"""What is left open when the interpreter exits is closed before zarr's loop stops, whatever the order of imports."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.servers import FolderServer, http_server
from tests.servers._process import REPOSITORY_ROOT

KEY = "greeting"
CONTENT = b"good morning"

READ = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing"))  # a busy machine
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
PROTOTYPE = default_buffer_prototype()
def read(store):
    assert sync(store.get("greeting", PROTOTYPE)).to_bytes() == b"good morning"
"""
# A program's last word: what the server sees now is what zarr's loop, had it stopped first, could not have closed.
AT_THE_END = """
import atexit, json, sys, zarr.core.sync
def look():
    from tests.servers._statistics import fetch_statistics
    import time
    for _ in range(200):
        if (connections := fetch_statistics(int(sys.argv[2])).connections) == 0:
            break
        time.sleep(0.005)
    loop = zarr.core.sync.loop[0]
    print(json.dumps([connections, loop is not None and loop.is_running()]))
"""


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server
        assert server.wait_for_connections(0) == 0


def run(program: str, server: FolderServer, *options: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own, given the server's URL and the port of its statistics."""
    return subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            *options,
            "-c",
            textwrap.dedent(program),
            server.url,
            str(server.statistics_port),
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=REPOSITORY_ROOT,
        check=False,
    )


def warnings_in(stderr: str) -> list[str]:
    """The lines that give a warning or an error, without Python's hint at tracemalloc."""
    return [
        line
        for line in stderr.splitlines()
        if ("Warning" in line or "Error" in line) and "Enable tracemalloc" not in line
    ]


IMPORTS = {
    "managed_store first": "import managed_store; managed_store.ManagedStore; import zarr, weakref",
    "zarr first, looked at": "import zarr; import managed_store",
    "finalizer made before": "import weakref\nclass C: pass\nc = C()\nf = weakref.finalize(c, print, end='')\n"
    "import managed_store, zarr",
    "finalizer made after": "import managed_store, zarr; managed_store.ManagedStore; import weakref\nclass C: pass\n"
    "c = C()\nf = weakref.finalize(c, print, end='')",
    "gcsfs and s3fs first": "import gcsfs, s3fs, zarr, managed_store",
}


@pytest.mark.parametrize("imports", IMPORTS)
def test_a_store_left_open_is_closed_before_zarrs_loop_stops(server: FolderServer, imports: str) -> None:
    """Exit code 0, the server sees every connection closed while zarr's loop runs, stderr has the warning only."""
    # Hooks run last in, first out: `look` runs after this package's hook, and before that of zarr imported above it.
    # Where zarr must come later, the server's word alone counts.
    look = "import zarr\n" + AT_THE_END + "atexit.register(look)\n" if imports.endswith("looked at") else ""
    use = READ + "store = managed_store.ManagedStore(sys.argv[1])\nread(store)\n"
    program = f"import sys\n{look}{IMPORTS[imports]}{use}"
    result = run(program, server)
    assert result.returncode == 0
    lines = warnings_in(result.stderr)
    assert len(lines) == 1
    assert "ResourceWarning: ManagedStore(" in lines[0]
    assert "Traceback" not in result.stderr
    assert server.wait_for_connections(0) == 0
    assert result.stdout.strip() == ("[0, true]" if look else "")


def test_warnings_that_are_errors_do_not_keep_stores_open(server: FolderServer) -> None:
    """With `-W error::ResourceWarning` each of three forgotten stores is named, closed, and the exit code is 0."""
    program = (
        "import zarr\n"
        + AT_THE_END
        + "atexit.register(look)\nimport managed_store\n"
        + READ
        + "stores = [managed_store.ManagedStore(sys.argv[1]) for _ in range(3)]\nfor store in stores: read(store)\n"
    )
    result = run(program, server, "-W", "error::ResourceWarning")
    assert result.returncode == 0
    assert result.stdout.strip() == "[0, true]"
    named = [line for line in result.stderr.splitlines() if line.startswith("ResourceWarning: ManagedStore(")]
    assert len(named) == 3
    assert "unclosed" not in result.stderr.lower()
    assert server.wait_for_connections(0) == 0


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise KeyError('x')", "raise KeyboardInterrupt", "pass"])
def test_every_ending_of_main_closes(server: FolderServer, ending: str) -> None:
    """However main ends, inside the block or outside it, every session is closed, and the exit code is its own."""
    program = f"""
    import sys
    from managed_store import ManagedStore
    {textwrap.indent(READ, "    ").strip()}
    outside = ManagedStore(sys.argv[1])
    read(outside)
    with ManagedStore(sys.argv[1]) as inside:
        read(inside)
        {ending}
    """
    result = run(program, server)
    expected = {"sys.exit(3)": 3, "pass": 0, "raise KeyError('x')": 1}.get(ending, -2)
    assert result.returncode in (expected, 130 if expected == -2 else expected)
    assert result.stderr.count("was never closed") == 1
    assert "Unclosed" not in result.stderr
    assert "unclosed" not in result.stderr
    assert server.wait_for_connections(0) == 0


def test_a_run_that_ended_with_a_store_forgotten(server: FolderServer) -> None:
    """A store made in one run and kept by the program has nothing open any more when it exits: silence."""
    program = f"""
    import asyncio, sys
    from managed_store import ManagedStore
    {textwrap.indent(READ, "    ").strip()}
    async def main():
        store = ManagedStore(sys.argv[1])
        await store.get("greeting", PROTOTYPE)
        return store
    store = asyncio.run(main())
    """
    result = run(program, server)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_store_dropped_within_a_run(server: FolderServer) -> None:
    """A store dropped by the coroutine that made it warns once and is closed by the run."""
    program = f"""
    import asyncio, sys
    from managed_store import ManagedStore
    {textwrap.indent(READ, "    ").strip()}
    async def main():
        await ManagedStore(sys.argv[1]).get("greeting", PROTOTYPE)
    asyncio.run(main())
    """
    result = run(program, server)
    assert result.returncode == 0
    assert len(warnings_in(result.stderr)) == 1
    assert "was never closed" in result.stderr


def test_a_loop_in_a_daemon_thread_is_asked_at_exit(server: FolderServer) -> None:
    """A session on a loop that still runs in a daemon thread is closed there."""
    program = f"""
    import asyncio, sys, threading
    from managed_store import ManagedStore
    {textwrap.indent(READ, "    ").strip()}
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    store = ManagedStore(sys.argv[1])
    asyncio.run_coroutine_threadsafe(store.get("greeting", PROTOTYPE), loop).result()
    """
    result = run(program, server)
    assert result.returncode == 0
    assert "was never closed" in result.stderr
    assert "Traceback" not in result.stderr


# Hooks run last in, first out: what stands around this package's is told how long that took.
TIME_THE_HOOK = """
import atexit, time
atexit.register(lambda: print(time.monotonic() - began))
import managed_store.store
def begin():
    global began
    began = time.monotonic()
atexit.register(begin)
"""


def test_all_stores_share_one_budget_at_exit(server: FolderServer) -> None:
    """Writes that hang take the exit one `close_timeout` in all, and no healthy store is named as left open."""
    program = f"""
    {textwrap.indent(TIME_THE_HOOK, "    ").strip()}
    import socket, sys, threading
    from managed_store import ManagedStore
    {textwrap.indent(READ, "    ").strip()}
    from zarr.core.buffer import cpu
    accepted = []
    silent = socket.create_server(("127.0.0.1", 0))
    url = "http://127.0.0.1:%d" % silent.getsockname()[1]
    stores = [ManagedStore(url if number % 2 else sys.argv[1], close_timeout=1.5) for number in range(8)]
    def write(store):
        try:
            sync(store.set("key", cpu.Buffer.from_bytes(b"x")))
        except Exception:
            pass
    for number, store in enumerate(stores):
        if number % 2:
            threading.Thread(target=write, args=[store], daemon=True).start()
            accepted.append(silent.accept())
        else:
            read(store)
    """
    result = run(program, server)
    assert result.returncode == 0
    assert 0.5 < float(result.stdout) < 3.0
    assert "managed_store: " not in result.stderr
    assert result.stderr.count("was never closed") == 8


def test_a_read_in_flight_in_a_daemon_thread_does_not_delay_the_exit() -> None:
    """At exit reads are cut off at once: only writes are given time."""
    with http_server(latency=30) as server:
        (server.root / KEY).write_bytes(CONTENT)
        program = f"""
        {textwrap.indent(TIME_THE_HOOK, "        ").strip()}
        import sys, threading
        from managed_store import ManagedStore
        {textwrap.indent(READ, "        ").strip()}
        store = ManagedStore(sys.argv[1], close_timeout=20)
        def in_thread():
            try:
                read(store)
            except Exception:
                pass
        threading.Thread(target=in_thread, daemon=True).start()
        while not store.statistics().requests_in_flight:
            time.sleep(0.01)
        """
        result = run(program, server)
        assert result.returncode == 0
        assert "was never closed" in result.stderr
        assert "Traceback" not in result.stderr
        assert float(result.stdout) < 5
        assert server.wait_for_connections(0) == 0
