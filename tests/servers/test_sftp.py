"""What fsspec's SFTP filesystem gets from asyncssh."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from tests.servers import SFTPServer, sftp_server
from tests.servers._clients import needs
from tests.servers._files import check_files, check_missing

pytestmark = needs("asyncssh", "paramiko")


@pytest.fixture(scope="module")
def server() -> Iterator[SFTPServer]:
    with sftp_server() as server:
        yield server


def close(filesystem: Any) -> None:
    filesystem.ftp.close()
    filesystem.client.close()


@pytest.fixture(autouse=True)
def nothing_left_open(server: SFTPServer) -> Iterator[None]:
    yield
    assert server.wait_for_connections(0) == 0


@pytest.fixture
def filesystem(server: SFTPServer) -> Iterator[Any]:
    filesystem = fsspec.filesystem("sftp", skip_instance_cache=True, **server.storage_options)
    yield filesystem
    close(filesystem)


def test_files(filesystem: Any) -> None:
    check_files(filesystem, "/files")


def test_missing_files(filesystem: Any) -> None:
    check_missing(filesystem, "")


def test_paths_lead_nowhere_else(filesystem: Any) -> None:
    assert not filesystem.exists("/../../../etc/passwd")


def test_url_and_options_agree(server: SFTPServer) -> None:
    (server.root / "by-url").write_bytes(b"x")
    filesystem, path = fsspec.url_to_fs(f"{server.url}/by-url", skip_instance_cache=True, **server.storage_options)
    assert filesystem.cat_file(path) == b"x"
    close(filesystem)


def test_wrong_password_is_refused(server: SFTPServer) -> None:
    paramiko: Any = pytest.importorskip("paramiko")
    options = {**server.storage_options, "password": "wrong"}
    with pytest.raises(paramiko.AuthenticationException):
        fsspec.filesystem("sftp", skip_instance_cache=True, **options)
    # paramiko never closes that connection itself: its thread holds on to the exception, and so to the client.
    for thread in threading.enumerate():
        if isinstance(thread, paramiko.Transport):
            thread.close()


def test_connection_is_counted_while_it_lasts(server: SFTPServer) -> None:
    opened = server.opened()
    first = fsspec.filesystem("sftp", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 1
    second = fsspec.filesystem("sftp", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 2
    close(first)
    assert server.wait_for_connections(1) == 1
    close(second)
    assert server.wait_for_connections(0) == 0
    assert server.opened() - opened == 2


def test_client_that_says_nothing_is_counted(server: SFTPServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        assert connection.recv(4) == b"SSH-"
        assert server.connections() == 1
