"""The pytest plugin, in pytests of their own: which tests it fails, what it tells, and whom it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.servers import FolderServer

pytest_plugins = ["pytester"]

PROLOGUE = """
import os, socket, threading, pytest
from tests.test_pytest_plugin import kept
URL = os.environ["URL"]
"""

# What leaking tests hold on to. Those that run here are rid of it afterwards.
kept: list[Any] = []

# What takes long to import, or belongs to none of this; zarr's plugin imports zarr.
WITHOUT = [argument for name in ("cacheprovider", "zarr", "hypothesispytest") for argument in ("-p", f"no:{name}")]


@pytest.fixture
def run(pytester: pytest.Pytester, http: FolderServer, monkeypatch: pytest.MonkeyPatch):
    """Run pytest over a file of tests, which can reach a real server; in a process of its own, or here."""
    monkeypatch.setenv("URL", f"{http.url}/data.zarr")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(tests: str, *arguments: str, here: bool = False) -> pytest.RunResult:
        pytester.makepyfile(PROLOGUE.lstrip() + tests)
        start = pytester.runpytest_inprocess if here else pytester.runpytest_subprocess
        try:
            return start(*WITHOUT, "-W", "ignore", *arguments)
        finally:
            while kept:
                kept.pop().close()

    return run


LEAKY = """
import aiohttp, fsspec, zarr

def test_zarr():
    zarr.open_group(URL, mode="r")

async def test_aiohttp():
    session = aiohttp.ClientSession()
    kept.append(session)
    await (await session.get(URL + "/zarr.json")).read()

def test_fsspec():
    with fsspec.open(URL + "/zarr.json") as file:
        file.read()

def test_thread():
    kept.append(threading.Event())
    threading.Thread(target=kept[-1].wait, name="left").start()

def test_clean():
    kept[-1].set()
    with socket.socket():
        pass
"""


SOCKETS = """
def test_leaks():
    kept.append(socket.socket())

def test_clean():
    pass
"""


def test_it_is_off_unless_asked_for(run) -> None:
    """Leaking tests pass as before."""
    run(SOCKETS, here=True).assert_outcomes(passed=2)


def test_tests_that_leak_fail_with_the_line(run) -> None:
    """Each is named, with the line of its own code that opened what is left; a clean one passes."""
    result = run(LEAKY, "-o", "asyncio_mode=auto", "--fail-on-leaks")
    result.assert_outcomes(passed=5, errors=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    name = "test_tests_that_leak_fail_with_the_line.py"
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_zarr*",
            f"{name}::test_zarr has left open: 1 fsspec filesystem, 1 aiohttp session, 1 aiohttp connector, * sockets",
            f"opened at {name}:8, in test_zarr",
            "*on the event loop of thread zarr_io, which is running",
            "*ERROR at teardown of test_aiohttp*",
            f"{name}::test_aiohttp has left open: 1 aiohttp session, 1 aiohttp connector, 1 socket",
            f"opened at {name}:11, in test_aiohttp",
            "*which is closed",
            "*ERROR at teardown of test_fsspec*",
            f"opened at {name}:16, in test_fsspec",
            "*ERROR at teardown of test_thread*",
            f"opened at {name}:21, in test_thread",
            "*thread  left (Thread)",
        ]
    )


def test_under_xdist(run) -> None:
    """The same in the processes of pytest-xdist."""
    result = run(SOCKETS, "--fail-on-leaks", "-n", "2")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_under_xdist.py::test_leaks has left open: 1 socket"])


def test_with_anyio(run) -> None:
    """Its tests and fixtures run on a loop that a runner of its own closes."""
    result = run(
        """
        import aiohttp

        pytestmark = pytest.mark.anyio

        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"

        @pytest.fixture(scope="module")
        async def shared():
            async with aiohttp.ClientSession() as session:
                yield session

        @pytest.fixture
        async def own():
            async with aiohttp.ClientSession() as session:
                yield session

        async def test_clean(shared, own):
            for session in shared, own:
                await (await session.get(URL + "/zarr.json")).read()

        async def test_leaks(shared):
            kept.append(aiohttp.ClientSession())
        """.replace("\n        ", "\n"),
        "--fail-on-leaks",
        "-p",
        "no:asyncio",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*::test_leaks has left open: 1 aiohttp session, 1 aiohttp connector"])


FIXTURES = """
@pytest.fixture(scope="module")
def shared():
    opened = socket.create_connection(URL.split("/")[2].split(":"))
    yield opened
    opened.close()

@pytest.fixture
def own():
    with socket.socket() as opened:
        yield opened

@pytest.fixture(scope="session")
def opens_later():
    holder = Holder()
    yield holder
    holder.opened.close()

class Holder:
    def open(self):
        self.opened = socket.socket()

def test_the_first_to_use_them(shared, own, opens_later):
    opens_later.open()

def test_another(shared, own, opens_later):
    pass
"""


def test_what_fixtures_of_a_broader_scope_open_is_not_the_tests(run) -> None:
    """Neither in their set-up, which the first test brings about, nor later on; they close it at the end."""
    run(FIXTURES, "--fail-on-leaks", here=True).assert_outcomes(passed=2)


def test_what_fixtures_leave_open_is_told_at_the_end_of_the_session(run) -> None:
    """In the teardown of the last test, with the line of the fixture; also if that test has failed by itself."""
    tests = """
@pytest.fixture(scope="session")
def shared():
    kept.append(socket.socket())

@pytest.fixture(scope="session")
async def shared_async():
    kept.append(socket.socket())

def test_it(shared):
    pass

async def test_it_async(shared_async):
    pass

def test_that_fails():
    kept.append(socket.socket())
    assert False
"""
    result = run(tests, "-o", "asyncio_mode=auto", "--fail-on-leaks", here=True)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    name = "test_what_fixtures_leave_open_is_told_at_the_end_of_the_session.py"
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_that_fails*",
            "At the end of the session there is left open: 2 sockets",
            f"opened at {name}:7, in shared",
            f"opened at {name}:11, in shared_async",
            "*Captured leaks teardown*",
            f"{name}::test_that_fails has left open: 1 socket",
        ]
    )


def test_the_marker_the_setting_and_the_fixture(run) -> None:
    """A marker allows kinds, what a function accepts, or all; a wrong one is an error that says what would work."""
    tests = """
@pytest.mark.leaks
def test_all():
    kept.append(socket.socket())

@pytest.mark.leaks(allow="socket")
def test_a_kind():
    kept.append(socket.socket())

@pytest.mark.leaks(allow=["thread", lambda leak: "TCP" in leak.what])
def test_several():
    kept.append(socket.socket())

@pytest.mark.leaks(allow=["thread"])
def test_another_kind():
    kept.append(socket.socket())

@pytest.mark.leaks(allow="sockets")
def test_no_kind():
    pass

@pytest.mark.leaks("socket")
def test_no_name():
    pass

@pytest.mark.skip
def test_skipped():
    pass
"""
    result = run(tests, "-o", "fail_on_leaks=true", "--strict-markers", here=True)
    result.assert_outcomes(passed=4, errors=3, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_another_kind has left open: 1 socket",
            "The marker leaks(allow=...) takes functions of a Leak, and kinds: *; got 'sockets'.",
            "The marker leaks takes one argument, by its name: leaks(allow=...).",
        ]
    )


def test_the_fixture(run) -> None:
    """It turns the check on for one test, with its fixtures, and gives the check that is on."""
    tests = """
@pytest.fixture
def own():
    with socket.socket() as opened:
        yield opened

def test_clean(leak_check, own):
    assert [leak.kind for leak in leak_check.so_far()] == ["socket"]

def test_leaks(own, leak_check):
    kept.append(socket.socket())
    assert len(leak_check.so_far()) == 2

def test_not_checked():
    kept.append(socket.socket())
"""
    result = run(tests, here=True)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*::test_leaks has left open: 1 socket"])


def test_the_fixture_is_asked_for_while_the_test_runs(run) -> None:
    """Then the check begins there."""
    tests = """
def test_leaks(request):
    kept.append(socket.socket())
    check = request.getfixturevalue("leak_check")
    assert not check.so_far()
    kept.append(socket.socket())
"""
    result = run(tests, here=True)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*::test_leaks has left open: 1 socket"])


def test_a_test_that_is_run_again(run, pytester: pytest.Pytester) -> None:
    """Other plugins run what has failed again: it may pass then, and leak."""
    pytester.makeconftest("""
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    for again in (True, False):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=not again)
        if again and not any(report.failed for report in reports):
            break
    return True
""")
    tests = """
runs = []

def test_leaks():
    runs.append(1)
    assert len(runs) == 2
    kept.append(socket.socket())
"""
    result = run(tests, "--fail-on-leaks", here=True)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*::test_leaks has left open: 1 socket"])


def test_a_socket_that_is_opened_between_two_tests(run, pytester: pytest.Pytester) -> None:
    """By a hook, say: it is no leak of the next test, which did not open it."""
    pytester.makeconftest("""
import socket

opened = []

def pytest_runtest_logfinish(nodeid):
    if nodeid.endswith("test_first"):
        opened.append(socket.create_server(("127.0.0.1", 0)))
    elif opened:
        opened.pop().close()
""")
    tests = """
def test_first():
    pass

def test_second():
    with socket.socket():
        pass

def test_third():
    pass
"""
    run(tests, "--fail-on-leaks", here=True).assert_outcomes(passed=3)


def test_the_plugin_is_light() -> None:
    """pytest imports it into everybody's run: until it is asked for, it brings nothing but itself."""
    program = (
        "import pytest, sys; before = set(sys.modules); import managed_store.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["managed_store", "managed_store.pytest_plugin"]
