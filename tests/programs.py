"""Programs of a test: each in a Python of its own, beside real servers, so that it may be interrupted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import RunningServer
from tests.servers._process import REPOSITORY_ROOT

__all__ = ["CONTENT", "KEY", "Ended", "Program", "run", "running"]

KEY = "greeting"
CONTENT = b"good morning"

# What every program begins with. Its arguments are the URL and the statistics' port of each server.
_PROLOGUE = """
import asyncio, functools, gc, os, signal, sys, threading, time
import zarr
from managed_store import ManagedStore, StoreClosedError
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from tests.servers._statistics import fetch_statistics

# In development mode asyncio says which callbacks were slow: on a busy machine, any.
import logging
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing"))

# In a process group that is in the background of a shell, Python takes over that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

PROTOTYPE = default_buffer_prototype()
URL, PORT = sys.argv[1], int(sys.argv[2])
HUNG = sys.argv[-2]

def get(store):
    return store.get("greeting", PROTOTYPE)

def put(store):
    return store.set("written", cpu.Buffer.from_bytes(b"x"))

def read(store):
    assert sync(get(store)).to_bytes() == b"good morning"

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole, whatever other threads say

def ask():
    return fetch_statistics(PORT)

def seen_connections(expected):
    "What the server sees, as soon as that is what is expected: a close takes a moment to arrive."
    deadline = time.monotonic() + 10
    while (seen := ask().connections) != expected and time.monotonic() < deadline:
        time.sleep(0.002)
    return seen

def wait_for_connections(expected):
    assert (seen := seen_connections(expected)) == expected, (seen, expected)

def say_what_is_open():
    "How many sockets are open in this process at this moment, and how many connections the server sees."
    from tests.footprint import Footprint
    say(Footprint.now().sockets, seen_connections(0))

def in_thread(function, *args, **options):
    def outcome():
        try:
            function(*args)
        except BaseException as error:
            say(type(error).__name__)
    thread = threading.Thread(target=outcome, **options)
    thread.start()
    return thread
"""

# Python 3.12 warns of every fork beside threads, zarr's among them; that is what is tried here.
_FORKS = ("-W", "ignore:This process:DeprecationWarning")


@dataclass(frozen=True)
class Ended:
    """How a program has ended.

    Attributes
    ----------
    code : int
        Its exit code; negative, the signal that killed it.
    output, errors : str
        What it wrote to stdout and to stderr.
    seconds : float
        How long that took since the last signal that it was sent, else since it began.
    """

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def quietly(self) -> tuple[int, str]:
        """Exit code and stderr: ``(0, "")`` for a program that ends as it should."""
        return self.code, self.errors


class Program:
    """A program that is running."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
        self._process = process
        self._output = output
        self._errors = errors
        self._since = time.monotonic()

    def said(self) -> str:
        """What it has written to stdout so far."""
        return self._output.read_text()

    def wait_until_said(self, word: str) -> None:
        """Wait until it has written `word`."""
        self._wait_until(lambda: word in self.said())

    def wait_for_requests(self, server: RunningServer, count: int) -> None:
        """Wait until `server` has received `count` requests since it was started."""
        self._wait_until(lambda: server.requests() >= count)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal. From here on its time is counted."""
        self._since = time.monotonic()
        self._process.send_signal(number)

    def pause(self, seconds: float) -> None:
        """Let it go on for a while."""
        time.sleep(seconds)

    def end(self, *, within: float = 60) -> Ended:
        """Wait for its end, at most `within` seconds."""
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            # A look at where it hangs: `-X dev` enables faulthandler, which answers to SIGABRT.
            self._process.send_signal(signal.SIGABRT)
            self._process.wait(5)
            raise AssertionError(f"it did not end in {within} s:\n{self._all_said()}") from None
        return Ended(code, self.said(), self._errors.read_text(), time.monotonic() - self._since)

    def _wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 40
        while not happened():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it ended or hangs before its time:\n{self._all_said()}")
            time.sleep(0.005)

    def _all_said(self) -> str:
        return self.said() + self._errors.read_text()


@contextmanager
def running(program: str, *servers: RunningServer, options: tuple[str, ...] = ()) -> Iterator[Program]:
    """Run a program in development mode while the block lasts; give it Python's `options` besides.

    It is a file, which processes that are spawned can import. What every program needs stands at its top, or where it
    has the line ``PROLOGUE``.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
    for server in servers:
        if server.ca_file is not None:
            environment["SSL_CERT_FILE"] = str(server.ca_file)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="program-")))
        text = textwrap.dedent(program)
        if "PROLOGUE\n" not in text:
            text = f"PROLOGUE\n{text}"
        (folder / "program.py").write_text(text.replace("PROLOGUE\n", _PROLOGUE))
        arguments = [argument for server in servers for argument in (server.url, str(server.statistics_port))]
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-X", "dev", *_FORKS, *options, str(folder / "program.py"), *arguments],
                cwd=REPOSITORY_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stack.enter_context((folder / "stdout").open("wb")),
                stderr=stack.enter_context((folder / "stderr").open("wb")),
            )
        )
        stack.callback(process.kill)
        yield Program(process, folder / "stdout", folder / "stderr")


def run(program: str, *servers: RunningServer, options: tuple[str, ...] = ()) -> Ended:
    """Run a program to its end."""
    with running(program, *servers, options=options) as started:
        return started.end()
