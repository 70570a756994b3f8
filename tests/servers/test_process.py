"""Servers start fast or say why not, end with their block or their parent, and leave nothing behind."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import (
    RunningServer,
    ServerProcessError,
    azure_server,
    ftp_server,
    gcs_server,
    http_server,
    nginx_server,
    s3_server,
    sftp_server,
    smb_server,
    webdav_server,
    webhdfs_server,
)
from tests.servers._clients import needs, needs_azurite, needs_nginx
from tests.servers._process import REPOSITORY_ROOT, run_server

# It comes without types.
psutil: Any = pytest.importorskip("psutil")

Starter = Callable[[], AbstractContextManager[RunningServer]]

every_server = pytest.mark.parametrize(
    "start",
    [
        pytest.param(http_server, id="http"),
        pytest.param(lambda: http_server(tls=True), id="https"),
        pytest.param(gcs_server, id="gcs"),
        pytest.param(s3_server, id="s3"),
        pytest.param(nginx_server, id="nginx", marks=needs_nginx),
        pytest.param(azure_server, id="azure", marks=needs_azurite),
        pytest.param(ftp_server, id="ftp", marks=needs("pyftpdlib")),
        pytest.param(sftp_server, id="sftp", marks=needs("asyncssh")),
        pytest.param(webdav_server, id="webdav", marks=needs("wsgidav", "cheroot")),
        pytest.param(smb_server, id="smb", marks=needs("impacket")),
        pytest.param(webhdfs_server, id="webhdfs"),
    ],
)


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process and its servers make their temporary files; its name is as long as it gets."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], *, timeout: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@every_server
def test_server_ends_with_its_block(start: Starter) -> None:
    with start() as server:
        assert accepts_connections(server.port)
    assert not accepts_connections(server.port)
    assert not accepts_connections(server.statistics_port)


@every_server
def test_server_leaves_nothing_behind(start: Starter, temporary_folder: Path) -> None:
    process = psutil.Process()

    def held() -> tuple[int, int, list[Any], list[str]]:
        return process.num_fds(), threading.active_count(), process.children(), os.listdir(temporary_folder)

    before = held()
    with start() as server:
        assert accepts_connections(server.port)
        server.statistics()
    assert held() == before


@every_server
def test_server_ends_when_its_parent_is_killed(
    start: Starter, request: pytest.FixtureRequest, temporary_folder: Path
) -> None:
    name, options = request.node.callspec.id, ""
    if name == "https":
        name, options = "http", "tls=True"
    program = f"""
import os, signal
from tests.servers import {name}_server
with {name}_server({options}) as server:
    print(server.port, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == -signal.SIGKILL
    assert wait_until(lambda: not accepts_connections(int(ended.stdout)))
    assert wait_until(lambda: not os.listdir(temporary_folder))


def test_failure_to_start_shows_what_the_server_wrote() -> None:
    with pytest.raises(ServerProcessError, match="KeyError: 'root'"), run_server("serve_http", {}):
        pass


def test_slow_start_is_given_up() -> None:
    with pytest.raises(ServerProcessError, match="did not start"), run_server("serve_s3", {}, start_timeout=0.01):
        pass


def run_server_that_is_killed(*, error: Exception | None = None) -> None:
    before = set(psutil.Process().children())
    with http_server():
        (process,) = set(psutil.Process().children()) - before
        process.kill()
        # Wait until it could be reaped, but leave that to its owner.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if error:
            raise error


def test_server_that_ends_by_itself_is_an_error() -> None:
    with pytest.raises(ServerProcessError, match=r"ended by itself \(-9\)"):
        run_server_that_is_killed()


def test_exception_of_the_block_is_not_masked() -> None:
    with pytest.raises(LookupError):
        run_server_that_is_killed(error=LookupError())


def test_settings_of_the_test_run_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with s3_server() as server:
        assert server.create_bucket("bucket")


def test_handle_works_in_another_process(tmp_path: Path) -> None:
    with http_server(tmp_path) as server:
        copy = pickle.loads(pickle.dumps(server))
        assert copy == server
        assert copy.request("GET", "/")[0] == 200
        assert copy.requests() == 1


def test_folder_given_is_served_and_kept(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with http_server(tmp_path) as server:
        assert server.root == tmp_path
        assert server.request("GET", "/x")[2] == b"x"
    assert (tmp_path / "x").exists()


def test_aiohttp_servers_start_within_a_second() -> None:
    started = time.perf_counter()
    with http_server():
        # Twice what is promised: the machine may be busy.
        assert time.perf_counter() - started < 2.0
