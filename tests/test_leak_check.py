"""`leak_check` around blocks: what it tells of what it finds, and that it changes nothing of the program."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import fsspec
import fsspec.asyn
import pytest
import uvloop
import zarr
import zarr.api.asynchronous
from fsspec.implementations.http import HTTPFileSystem

from managed_store import ManagedStore, StorePool
from managed_store.errors import ArgumentError, ArgumentTypeError, LeakError, LeakWarning, ManagedStoreError
from managed_store.testing import Leak, LeakReport, leak_check
from managed_store.testing._opened import Opened
from tests.servers import FolderServer

# What the checks of other tests may not have patched for ever: the classes that are patched while one is on.
PATCHED: list[Any] = [
    aiohttp.ClientSession,
    aiohttp.BaseConnector,
    asyncio.BaseEventLoop,
    fsspec.spec.AbstractFileSystem,
    socket.socket,
    threading.Thread,
    uvloop.Loop,
]


@pytest.fixture
def cleared() -> Iterator[None]:
    """Close what plain zarr and fsspec have left open in fsspec's cache, each on its loop."""
    yield
    for filesystem in HTTPFileSystem._cache.values():
        session = filesystem._session
        if session is not None and session._loop.is_running():
            asyncio.run_coroutine_threadsafe(session.close(), session._loop).result(5)
    HTTPFileSystem.clear_instance_cache()


def kinds(report: LeakReport) -> set[str]:
    return {leak.kind for leak in report}


def line_of(function: Callable[..., Any], text: str) -> str:
    """The place of the line of a function that holds a text, as a report names it."""
    lines, first = inspect.getsourcelines(function)
    return f"{__file__}:{first + next(number for number, line in enumerate(lines) if text in line)}"


def read_with_zarr(url: str) -> None:
    zarr.open_group(url, mode="r")["numbers"][...]


@pytest.mark.usefixtures("cleared")
def test_what_plain_zarr_leaves_open_is_told_with_the_line_that_asked(http: FolderServer) -> None:
    """The session is opened on zarr's loop; the report names the line of the caller, the loop, and that it runs."""
    with leak_check(on_leak="report", grace=0) as check:
        read_with_zarr(f"{http.url}/data.zarr")
    assert kinds(check.report) == {"filesystem", "session", "connector", "socket"}
    lines = {line_of(read_with_zarr, "zarr.open_group")}
    assert {leak.made_at for leak in check.report} == lines
    session = next(leak for leak in check.report if leak.kind == "session")
    assert (session.loop, session.loop_state) == ("the event loop of thread zarr_io", "running")
    assert session.stack[0].library
    assert {"fsspec", "zarr"} <= {frame.package for frame in session.library_stack} <= {"fsspec", "zarr", "asyncio"}
    connected = next(leak.what for leak in check.report if leak.kind == "socket" and "TCP" in leak.what)
    assert connected.endswith(f"to {http.url.removeprefix('http://')}")
    text = str(check.report)
    assert text.startswith("left open: 1 fsspec filesystem, 1 aiohttp session, 1 aiohttp connector, ")
    assert "opened at tests/test_leak_check.py" in text
    assert "in test_what_plain_zarr_leaves_open_is_told_with_the_line_that_asked" in text


@pytest.mark.usefixtures("cleared")
@pytest.mark.leaks
def test_the_line_is_told_across_tasks_of_a_library(http: FolderServer) -> None:
    """zarr opens the session in a task of its own, in which none of the user's code is on the stack."""

    async def read() -> None:
        group = await zarr.api.asynchronous.open_group(f"{http.url}/data.zarr", mode="r")
        await group.getitem("numbers")

    async def main(check: leak_check) -> None:
        async with check:
            await read()

    check = leak_check(on_leak="report", grace=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the session's loop ends with it open: that is the case
        asyncio.run(main(check))
        HTTPFileSystem.clear_instance_cache()
        gc.collect()
    session = next(leak for leak in check.report if leak.kind == "session")
    assert session.made_at == line_of(read, "open_group")
    assert session.loop == "the event loop of thread MainThread"


@pytest.mark.usefixtures("cleared")
def test_what_fsspec_leaves_open(http: FolderServer) -> None:
    """The same for `fsspec.open`, on fsspec's loop."""

    def read() -> None:
        with fsspec.open(f"{http.url}/data.zarr/zarr.json") as file:
            assert file.read()

    with leak_check(on_leak="report", grace=0) as check:
        read()
    assert kinds(check.report) == {"filesystem", "session", "connector", "socket"}
    assert {leak.made_at for leak in check.report} <= {line_of(read, "fsspec.open"), line_of(read, "file.read()")}
    assert {leak.loop for leak in check.report} == {"the event loop of thread fsspecIO", None}


def test_clean_programs_are_clean(http: FolderServer) -> None:
    """No false alarm: managed stores and pools in both APIs, bare aiohttp that is closed, executors, loops."""
    url = f"{http.url}/data.zarr"

    async def several() -> None:
        async with ManagedStore(url) as store:
            group = await zarr.api.asynchronous.open_group(store, mode="r")
            await group.getitem("numbers")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/zarr.json") as response:
            await response.read()
        await asyncio.to_thread(time.sleep, 0)

    with leak_check():
        with ManagedStore(url) as store:
            zarr.open_group(store, mode="r")["numbers"][...]
        with StorePool() as pool:
            zarr.open_group(pool.store(url), mode="r")["numbers"][...]
        asyncio.run(several())
        uvloop.run(several())
        subprocess.run([sys.executable, "-c", ""], check=True)
        with asyncio.Runner() as runner:
            runner.run(asyncio.sleep(0))


def test_it_raises_with_the_report() -> None:
    """The default; the error is of this package's tree and an AssertionError, and survives a pickle."""
    with pytest.raises(LeakError, match="left open: 1 socket") as caught, leak_check(grace=0) as check:
        left = socket.socket()
    left.close()
    assert isinstance(caught.value, ManagedStoreError)
    assert isinstance(caught.value, AssertionError)
    assert caught.value.report == check.report
    assert pickle.loads(pickle.dumps(caught.value)).report == check.report


async def test_it_warns_where_the_block_is() -> None:
    """`on_leak="warn"` gives a LeakWarning, in both forms, at a line of the user's."""
    left = []
    with pytest.warns(LeakWarning, match="left open: 1 socket") as caught:  # noqa: PT031
        with leak_check(on_leak="warn", grace=0):
            left.append(socket.socket())
        async with leak_check(on_leak="warn", grace=0):
            left.append(socket.socket())
    for each in left:
        each.close()
    assert [Path(warning.filename).name for warning in caught] == ["test_leak_check.py"] * 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_the_error_of_the_block_goes_first(error: type[BaseException]) -> None:
    """It is raised as it is, with the report as a note; nothing is added where only a report was asked for."""
    left: list[socket.socket] = []
    for on_leak, notes in (("raise", 1), ("warn", 1), ("report", 0)):
        check = leak_check(on_leak=on_leak, grace=0)  # type: ignore[arg-type]
        with pytest.raises(error) as caught, check:
            left.append(socket.socket())
            raise error
        assert len(getattr(caught.value, "__notes__", [])) == notes
        assert kinds(check.report) == {"socket"}
    for each in left:
        each.close()


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that takes no note."""

    code: int


def test_an_error_that_takes_no_note_comes_out_as_it_is() -> None:
    with pytest.raises(FrozenError), leak_check(grace=0):
        left = socket.socket()
        raise FrozenError(1)
    left.close()


async def test_what_ignores_leaks_may_fail() -> None:
    """That is raised, but not in place of an error of the block."""

    def broken(leak: Leak) -> bool:
        raise LookupError(leak.kind)

    with pytest.raises(LookupError), leak_check(ignore=broken, grace=0):
        left = socket.socket()
    left.close()
    with pytest.raises(ValueError, match="of the block") as caught, leak_check(ignore=broken, grace=0):
        left = socket.socket()
        raise ValueError("of the block")
    left.close()
    assert caught.value.__notes__ == [
        "The block was left with this error, and leak_check failed with LookupError('socket')"
    ]
    with pytest.raises(ValueError, match="of the block"):
        async with leak_check(ignore=broken, grace=0):
            left = socket.socket()
            raise ValueError("of the block")
    left.close()


async def test_a_cancellation_while_it_waits_does_not_replace_the_error_of_the_block() -> None:
    """As with a store: the body's own error wins, and the cancellation is a note on it."""
    left = []

    async def leaving() -> None:
        async with leak_check(grace=10):
            left.append(socket.socket())
            raise ValueError("of the block")

    task = asyncio.create_task(leaving())
    while not left:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(ValueError, match="of the block") as caught:
        await task
    left[0].close()
    assert caught.value.__notes__[0] == "While leaving the block, its task was cancelled."
    assert "left open: 1 socket" in caught.value.__notes__[1]


def test_a_thread_that_never_could_be_started() -> None:
    """Its class has forgotten to call the constructor of Thread: no leak, and no error of the check's own."""

    class Forgetful(threading.Thread):
        def __init__(self) -> None:
            pass

    thread = Forgetful()
    with leak_check(grace=0), contextlib.suppress(RuntimeError):
        thread.start()


def test_a_check_that_cannot_begin_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """A module that a test has put in the place of another, without what is in that."""
    if pytestconfig.getoption("fail_on_leaks"):
        pytest.skip("only the outermost check installs anything; here it is that of --fail-on-leaks")
    before = [dict(vars(cls)) for cls in PATCHED]
    monkeypatch.setitem(sys.modules, "uvloop", ModuleType("uvloop"))
    with pytest.raises(AttributeError, match="uvloop"), leak_check():
        pass
    assert [dict(vars(cls)) for cls in PATCHED] == before
    monkeypatch.undo()
    with leak_check(on_leak="report", grace=0) as check:
        left = socket.socket()
    left.close()
    assert kinds(check.report) == {"socket"}


def test_what_is_ignored() -> None:
    """One predicate or several; what is left is told."""
    left = []
    for ignore in (
        lambda leak: leak.kind == "socket",
        [lambda leak: "TCP" in leak.what, lambda leak: "UNIX" in leak.what],
    ):
        with leak_check(ignore=ignore, grace=0):
            left += [socket.socket(), socket.socket(socket.AF_UNIX)]
    with leak_check(on_leak="report", ignore=lambda leak: "TCP" in leak.what, grace=0) as check:
        left += [socket.socket(), socket.socket(socket.AF_UNIX)]
    for each in left:
        each.close()
    assert [leak.what for leak in check.report] == ["UNIX pair"]


def test_nested_and_concurrent_checks() -> None:
    """An inner block answers for itself; the outer one for both; nothing stays patched afterwards."""
    before = [dict(vars(cls)) for cls in PATCHED]
    with leak_check(on_leak="report", grace=0) as outer:
        first = socket.socket()
        with leak_check(on_leak="report", grace=0) as inner:
            second = socket.socket()
        barrier = threading.Barrier(4)

        def check_alone() -> None:
            barrier.wait()
            for _ in range(20):
                with leak_check(on_leak="report", grace=0):
                    pass

        threads = [threading.Thread(target=check_alone) for _ in range(3)]
        for thread in threads:
            thread.start()
        barrier.wait()
        for thread in threads:
            thread.join()
    assert (len(inner.report), len(outer.report)) == (1, 2)
    first.close()
    second.close()
    assert [dict(vars(cls)) for cls in PATCHED] == before


def test_so_far_and_using_one_again() -> None:
    """`so_far` looks without waiting; one object checks one block at a time, and can check another afterwards."""
    check = leak_check(on_leak="report")
    assert check.so_far() == LeakReport()
    with check:
        assert not check.so_far()
        left = socket.socket()
        assert kinds(check.so_far()) == {"socket"}
        with pytest.raises(ArgumentError, match="on already"):
            check.__enter__()
        left.close()
        assert not check.so_far()
    with check:
        pass
    assert not check.report


def test_one_that_is_left_twice_ends_no_other() -> None:
    """Leaving it again is an error, and the check around it goes on."""
    with leak_check(on_leak="report") as outer:
        with leak_check() as inner:
            pass
        with pytest.raises(ArgumentError, match="is not on"):
            inner.__exit__(None, None, None)
        left = socket.socket()
    left.close()
    assert kinds(outer.report) == {"socket"}


def test_what_closes_a_moment_later_is_waited_for() -> None:
    """A clean block is left at once; what a thread is closing is waited for, and no longer than the grace."""
    with leak_check(grace=5):
        left = socket.socket()
        closing = threading.Timer(0.1, left.close)
        closing.start()
    closing.join()


async def test_the_loop_turns_while_it_is_waited_for() -> None:
    """With `async with` a task that is about to end is not a leak."""
    async with leak_check(grace=5):
        task = asyncio.create_task(asyncio.sleep(0.05))
    assert task.done()


def test_a_forked_child_reports_nothing() -> None:
    """What it has inherited is its parent's, and what it opens goes with it."""
    program = """
        import os, socket
        from managed_store.testing import leak_check
        with leak_check(on_leak="report", grace=0) as check:
            left = socket.socket()
            child = os.fork()
        os.write(1, b"%d " % len(check.report))
        if child:
            os.waitpid(child, 0)
            left.close()
        else:
            os._exit(0)
    """
    assert sorted(output_of(program).split()) == ["0", "1"]


def test_forks_while_other_threads_begin_and_end_checks() -> None:
    """A child can check what it does, whatever the other threads of its parent were about when it was forked."""
    program = """
        import os, signal, sys, threading
        from managed_store.testing import leak_check

        sys.setswitchinterval(1e-5)
        ended = threading.Event()

        def check():
            while not ended.is_set():
                with leak_check(on_leak="report", grace=0):
                    pass

        threads = [threading.Thread(target=check) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            child = os.fork()
            if child == 0:
                signal.alarm(5)
                with leak_check(on_leak="report", grace=0):
                    pass
                os._exit(0)
            if os.waitpid(child, 0)[1] != 0:
                print("a child was stuck")
                break
        ended.set()
    """
    result = run_program(program)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_tool_imports_nothing_and_finds_what_is_imported_later(http: FolderServer) -> None:
    """A program may import aiohttp inside the block; without one it finds none, and loads no package."""
    program = f"""
        import asyncio, logging, sys
        from managed_store.testing import leak_check
        logging.disable()  # in development mode asyncio tells of slow callbacks, such as importing aiohttp
        with leak_check():
            before = set(sys.modules)
            import json
        heavy = "aiohttp", "zarr", "fsspec", "aiobotocore", "grpc", "uvloop", "gcsfs", "numpy", "pytest"
        assert not any(name in sys.modules for name in heavy), sys.modules

        async def main():
            async with leak_check(on_leak="report", grace=0) as check:
                import aiohttp
                assert type(aiohttp.client.__spec__.loader).__name__ == "SourceFileLoader", aiohttp.client.__spec__
                assert aiohttp.client.__loader__ is aiohttp.client.__spec__.loader
                session = aiohttp.ClientSession()
                await (await session.get("{http.url}/data.zarr/zarr.json")).read()
            await session.close()
            print(*sorted(leak.kind for leak in check.report))

        asyncio.run(main())
        assert not sys.meta_path[0].__class__.__module__.startswith("managed_store")
    """
    assert output_of(program) == "connector session socket\n"


def test_the_warnings_of_the_program_stay_as_they_are() -> None:
    """A check adds none, hides none, and moves none to another line; asyncio's own stacks in debug mode neither."""
    program = """
        import asyncio, sys, warnings
        import aiohttp
        from managed_store.testing import leak_check

        class Old(aiohttp.ClientSession):
            def __init__(self):
                super().__init__()
                warnings.warn("old", DeprecationWarning, stacklevel=2)

        async def forever():
            await asyncio.Event().wait()

        async def main():
            session = Old()
            del session
            task = asyncio.create_task(forever())
            await asyncio.sleep(0)
            task.get_loop().call_soon_threadsafe(int)
            stack = [f"{frame.filename}:{frame.lineno}" for frame in task._source_traceback]
            print(len(stack), stack[-1])
            task.cancel()

        if sys.argv[1] == "checked":
            with leak_check(on_leak="report", grace=0):
                asyncio.run(main(), debug=True)
        else:
            if True:
                asyncio.run(main(), debug=True)
    """
    plain, checked = (run_program(program, "-W", "always", arguments=[how]) for how in ("plain", "checked"))
    assert "Unclosed client session" in plain.stderr
    assert "DeprecationWarning: old" in plain.stderr
    assert "managed_store" not in checked.stderr.replace(str(Path(__file__).parent.parent), "")

    def told(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if "Warning: " in line and "Object allocated" not in line)

    def without_addresses(text: str) -> list[str]:
        return [line.partition(" at 0x")[0] for line in told(text)]

    assert without_addresses(checked.stderr) == without_addresses(plain.stderr)
    assert checked.stdout.split()[1] == plain.stdout.split()[1]


def test_bad_arguments() -> None:
    """Each is named, with what was given and what would work."""
    for wrong, error, match in (
        ({"on_leak": "shout"}, ArgumentError, "on_leak must be 'raise', 'warn' or 'report'; got 'shout'"),
        ({"ignore": "socket"}, ArgumentTypeError, "ignore must be a function of a Leak, or several; got str"),
        ({"ignore": 3}, ArgumentTypeError, "got int"),
        ({"ignore": [3]}, ArgumentTypeError, "ignore must hold functions of a Leak; got int in it"),
        ({"grace": "1"}, ArgumentTypeError, "grace must be a number of seconds; got str"),
        ({"grace": True}, ArgumentTypeError, "got bool"),
        ({"grace": -1}, ArgumentError, "0 or more; got -1"),
        ({"grace": float("nan")}, ArgumentError, "finite"),
    ):
        with pytest.raises(error, match=match):
            leak_check(**wrong)  # type: ignore[arg-type]


def test_the_report_is_data() -> None:
    """Immutable, iterable, true if there is anything, and JSON; the URL of a request is nowhere in it."""
    with leak_check(on_leak="report", grace=0) as check:
        left = socket.socket()
    left.close()
    (leak,) = check.report
    assert isinstance(leak, Leak)
    with pytest.raises(AttributeError):
        leak.kind = "task"  # type: ignore[misc]
    assert bool(check.report)
    assert not LeakReport()
    assert str(LeakReport()) == LeakReport().summary == "nothing was left open"
    data = json.loads(json.dumps(check.report.as_dict()))
    assert data["summary"] == "left open: 1 socket"
    assert data["leaks"][0]["made_at"] == leak.made_at
    assert data["leaks"][0]["stack"][0]["function"]


def test_no_secret_gets_into_a_report(http: FolderServer) -> None:
    """Neither user info nor a query, a header or an option."""

    async def main() -> LeakReport:
        async with leak_check(on_leak="report", grace=0) as check:
            session = aiohttp.ClientSession(http.url.replace("//", "//user:s3cr3t@"), headers={"X-Token": "s3cr3t"})
            await (await session.get("/data.zarr/zarr.json?token=s3cr3t")).read()
            thread = threading.Thread(target=time.sleep, args=[0.05], name="https://user:s3cr3t@host/?token=s3cr3t")
            thread.start()
        await session.close()
        thread.join()
        return check.report

    report = asyncio.run(main())
    assert kinds(report) == {"session", "connector", "socket", "thread"}
    assert "s3cr3t" not in f"{report} {report!r} {report.as_dict()}"


def test_watching_keeps_nothing_alive_and_leaves_nothing_behind() -> None:
    """After many blocks with many tasks and sockets, there is no more memory, descriptor or thread than after few."""

    async def work() -> None:
        for _ in range(50):
            await asyncio.create_task(asyncio.sleep(0))
            await asyncio.to_thread(int)
        socket.socket().close()

    def some() -> None:
        with leak_check():
            asyncio.run(work())

    for _ in range(3):
        some()
    gc.collect()
    objects, descriptors, threads = len(gc.get_objects()), len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(20):
        some()
    gc.collect()
    assert len(gc.get_objects()) - objects < 200
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (descriptors, threads)


def test_records_of_what_is_gone_are_few() -> None:
    """A service may run under a check for days: they are forgotten at the next look, or when there are many."""

    class Thing:
        pass

    opened, in_their_places = Opened(), []
    for _ in range(5500):
        opened.note(Thing())
        in_their_places.append(Thing())  # so that the next one gets an id of its own
    assert 0 < len(opened._records) <= 2000
    kept = Thing()
    opened.note(kept)
    assert [thing for _, thing in opened.since(0)] == [kept]
    assert len(opened._records) == 1


def run_program(program: str, *options: str, arguments: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program), *(arguments or [])],
        capture_output=True,
        text=True,
        check=False,
    )


def output_of(program: str) -> str:
    result = run_program(program, "-X", "dev", "-W", "ignore:This process:DeprecationWarning")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout
