"""What fsspec's SMB filesystem gets from impacket."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from tests.servers import SMBServer, smb_server
from tests.servers._clients import needs
from tests.servers._files import check_files

pytestmark = needs("impacket", "smbprotocol")


@pytest.fixture(scope="module")
def server() -> Iterator[SMBServer]:
    with smb_server() as server:
        yield server


def close(server: SMBServer) -> None:
    """Close the connection: it is not the filesystem's, but smbclient's, which has one per server for the process."""
    import smbclient

    smbclient.delete_session("127.0.0.1", port=server.port)


@pytest.fixture(autouse=True)
def nothing_left_open(server: SMBServer) -> Iterator[None]:
    yield
    close(server)
    assert server.wait_for_connections(0) == 0


@pytest.fixture
def filesystem(server: SMBServer) -> Any:
    return fsspec.filesystem("smb", skip_instance_cache=True, **server.storage_options)


def test_files(server: SMBServer, filesystem: Any) -> None:
    check_files(filesystem, f"/{server.share}/files")
    assert (server.root / "files/large").exists()


def test_missing_files(server: SMBServer, filesystem: Any) -> None:
    # Not FileNotFoundError, although it is an OSError with that number.
    for ask in (filesystem.cat_file, filesystem.info, filesystem.ls):
        with pytest.raises(OSError) as caught:
            ask(f"/{server.share}/missing")
        assert (caught.value.errno, type(caught.value).__name__) == (errno.ENOENT, "SMBOSError")
    assert not filesystem.exists(f"/{server.share}/missing")


def test_url_and_options_agree(server: SMBServer) -> None:
    (server.root / "by-url").write_bytes(b"x")
    filesystem, path = fsspec.url_to_fs(f"{server.url}/by-url", skip_instance_cache=True, **server.storage_options)
    assert filesystem.cat_file(path) == b"x"


def test_wrong_password_is_refused(server: SMBServer) -> None:
    exceptions: Any = pytest.importorskip("smbprotocol.exceptions")
    options = {**server.storage_options, "password": "wrong"}
    with pytest.raises((exceptions.SMBAuthenticationError, exceptions.LogonFailure)):
        fsspec.filesystem("smb", skip_instance_cache=True, **options)


def test_connection_is_counted_while_it_lasts(server: SMBServer) -> None:
    opened = server.opened()
    filesystem = fsspec.filesystem("smb", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 1
    # All filesystems of a process share it.
    fsspec.filesystem("smb", skip_instance_cache=True, **server.storage_options)
    filesystem.pipe_file(f"/{server.share}/counted", b"x")
    assert (server.connections(), server.opened() - opened) == (1, 1)
    close(server)
    assert server.wait_for_connections(0) == 0
