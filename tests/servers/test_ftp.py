"""What fsspec's FTP filesystem gets from pyftpdlib."""

from __future__ import annotations

import ftplib
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import fsspec
import pytest

from tests.servers import FTPServer, ftp_server
from tests.servers._clients import needs
from tests.servers._files import check_files, check_missing

pytestmark = needs("pyftpdlib")


@pytest.fixture(scope="module")
def server() -> Iterator[FTPServer]:
    with ftp_server() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left_open(server: FTPServer) -> Iterator[None]:
    yield
    assert server.wait_for_connections(0) == 0


@pytest.fixture
def filesystem(server: FTPServer) -> Iterator[Any]:
    filesystem = fsspec.filesystem("ftp", skip_instance_cache=True, **server.storage_options)
    yield filesystem
    filesystem.ftp.close()


def test_files(filesystem: Any) -> None:
    check_files(filesystem, "/files")


def test_missing_files(filesystem: Any) -> None:
    check_missing(filesystem, "")


def test_url_and_options_agree(server: FTPServer) -> None:
    (server.root / "by-url").write_bytes(b"x")
    filesystem, path = fsspec.url_to_fs(f"{server.url}/by-url", skip_instance_cache=True, **server.storage_options)
    with closing(filesystem.ftp):
        assert filesystem.cat_file(path) == b"x"


def test_anonymous_clients_write_too(server: FTPServer) -> None:
    filesystem = fsspec.filesystem("ftp", host="127.0.0.1", port=server.port, skip_instance_cache=True)
    with closing(filesystem.ftp):
        filesystem.pipe_file("/anonymous", b"x")
    assert (server.root / "anonymous").read_bytes() == b"x"


def test_wrong_password_is_refused(server: FTPServer) -> None:
    with closing(ftplib.FTP()) as client:
        client.connect("127.0.0.1", server.port)
        with pytest.raises(ftplib.error_perm, match="530"):
            client.login(server.username, "wrong")


def test_control_connection_is_counted_while_it_lasts(server: FTPServer) -> None:
    opened = server.opened()
    first = fsspec.filesystem("ftp", skip_instance_cache=True, **server.storage_options)
    assert (server.connections(), server.data_connections()) == (1, 0)
    second = fsspec.filesystem("ftp", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 2
    first.ftp.close()
    assert server.wait_for_connections(1) == 1
    second.ftp.close()
    assert server.wait_for_connections(0) == 0
    assert server.opened() - opened == 2


def test_data_connection_is_counted_while_it_lasts(server: FTPServer) -> None:
    # More than the buffers of a connection hold.
    (server.root / "huge").write_bytes(bytes(50_000_000))
    with closing(ftplib.FTP()) as client:
        client.connect("127.0.0.1", server.port)
        client.login(server.username, server.password)
        with client.transfercmd("RETR /huge") as data:
            assert data.recv(1)
            assert (server.connections(), server.data_connections()) == (2, 1)
        assert server.wait_for_connections(1) == 1
        assert server.data_connections() == 0


def test_client_that_ends_without_a_word_is_noticed(server: FTPServer) -> None:
    client = ftplib.FTP()
    client.connect("127.0.0.1", server.port)
    time.sleep(0.01)
    assert server.connections() == 1
    client.close()
