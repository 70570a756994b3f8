"""What fsspec's WebHDFS filesystem gets from the stub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import fsspec
import pytest

from tests.servers import WebHDFSServer, webhdfs_server
from tests.servers._clients import needs
from tests.servers._files import check_files, check_missing

pytestmark = needs("requests")


@pytest.fixture(scope="module")
def server() -> Iterator[WebHDFSServer]:
    with webhdfs_server() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left_open(server: WebHDFSServer) -> Iterator[None]:
    yield
    assert server.wait_for_connections(0) == 0


@pytest.fixture
def filesystem(server: WebHDFSServer) -> Iterator[Any]:
    filesystem = fsspec.filesystem("webhdfs", skip_instance_cache=True, **server.storage_options)
    yield filesystem
    filesystem.session.close()


def test_files(filesystem: Any) -> None:
    check_files(filesystem, "/files")


def test_missing_files(filesystem: Any) -> None:
    check_missing(filesystem, "")


def test_files_written_in_several_parts(server: WebHDFSServer, filesystem: Any) -> None:
    with filesystem.open("/parts", "wb", block_size=2**20) as stream:
        for number in range(5):
            stream.write(bytes([number]) * 2**20)
    assert (server.root / "parts").read_bytes() == b"".join(bytes([number]) * 2**20 for number in range(5))


def test_folders_are_renamed_and_deleted(server: WebHDFSServer, filesystem: Any) -> None:
    filesystem.makedirs("/old/inner")
    filesystem.mv("/old", "/new")
    with pytest.raises(RuntimeError, match="not empty"):
        filesystem.rm("/new")
    filesystem.rm("/new", recursive=True)
    assert not (server.root / "new").exists()


def test_url_names_the_server(server: WebHDFSServer) -> None:
    (server.root / "by-url").write_bytes(b"x")
    for options in ({}, server.storage_options):
        filesystem, path = fsspec.url_to_fs(f"{server.url}/by-url", skip_instance_cache=True, **options)
        with closing(filesystem.session):
            assert filesystem.cat_file(path) == b"x"


def test_bytes_are_elsewhere(server: WebHDFSServer) -> None:
    (server.root / "x").write_bytes(b"0123456789")
    status, headers, _ = server.request("GET", "/webhdfs/v1/x?op=OPEN&offset=2&length=3")
    assert status == 307
    path = headers["location"].removeprefix(f"http://127.0.0.1:{server.port}")
    assert server.request("GET", path)[::2] == (200, b"234")


def test_what_is_not_known_is_refused(server: WebHDFSServer) -> None:
    for path in ("/webhdfs/v1/x?op=NONE", "/x?op=OPEN", "/webhdfs/v1/../x?op=OPEN"):
        status, _, body = server.request("GET", path)
        assert status == 400
        assert json.loads(body)["RemoteException"]["exception"] == "UnsupportedOperationException"


def test_connections_are_counted_while_they_last(server: WebHDFSServer) -> None:
    opened = server.opened()
    filesystem = fsspec.filesystem("webhdfs", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 0
    filesystem.pipe_file("/counted", b"x")
    assert [filesystem.cat_file("/counted") for _ in range(3)] == [b"x"] * 3
    assert (server.connections(), server.opened() - opened) == (1, 1)
    filesystem.session.close()
    assert server.wait_for_connections(0) == 0
