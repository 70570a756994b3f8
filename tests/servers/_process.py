"""Run a server as a subprocess, so that its sockets and threads are not those of the tests.

The child announces where it listens in one JSON line on its standard output, and serves until its
standard input ends. The kernel ends it also when the parent dies, however it dies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

# What a test run sets for itself, and what would change how the server behaves or whether it is found.
_VARIABLES_NOT_PASSED_ON = frozenset(
    {"PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG", "PYTHONSAFEPATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)


class ServerProcessError(RuntimeError):
    """A server did not start, or ended before it was told to; the message holds what it wrote to stderr."""


@contextmanager
def run_server(module: str, config: Mapping[str, object], *, start_timeout: float = 20.0) -> Iterator[dict[str, Any]]:
    """Run `tests.servers.<module>` while the block lasts; gives what it announced.

    `start_timeout` is in seconds.
    """
    with ExitStack() as stack:
        # A file, not a pipe: nobody has to read it while the server runs.
        error_log = stack.enter_context(tempfile.TemporaryFile())
        process = stack.enter_context(_start(module, config, error_log))
        stack.callback(_stop, process)
        announcement = _wait_for_announcement(process, start_timeout)
        if announcement is None:
            _stop(process)
            raise ServerProcessError(f"the {module} server did not start:\n{_text(error_log)}")
        yield announcement
        if process.poll() is not None:
            raise ServerProcessError(f"the {module} server ended by itself ({process.returncode}):\n{_text(error_log)}")


def _start(module: str, config: Mapping[str, object], error_log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.{module}", json.dumps(config)],
        cwd=REPOSITORY_ROOT,
        env={name: value for name, value in os.environ.items() if name not in _VARIABLES_NOT_PASSED_ON},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=error_log,
        # Ctrl-C is for the tests alone: they stop their servers themselves.
        start_new_session=True,
    )


def _wait_for_announcement(process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any] | None:
    """The line which the child prints when it listens; None if it ended, or was too slow and was killed."""
    assert process.stdout is not None
    # Killing it ends its output: this limits the time of a blocking read on every platform.
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
        watchdog.join()
        process.stdout.close()
    if not line:
        return None
    announcement: dict[str, Any] = json.loads(line)
    return announcement


def _stop(process: subprocess.Popen[bytes], *, timeout: float = 5.0) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _text(error_log: IO[bytes]) -> str:
    error_log.seek(0)
    return error_log.read().decode(errors="replace") or "(it wrote nothing to stderr)"
