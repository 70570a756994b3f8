"""What webdav4's filesystem gets from WsgiDAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any

import fsspec
import pytest

from tests.servers import WebDAVServer, webdav_server
from tests.servers._clients import needs
from tests.servers._files import check_files, check_missing

pytestmark = needs("wsgidav", "cheroot", "webdav4")


@pytest.fixture(scope="module")
def server() -> Iterator[WebDAVServer]:
    with webdav_server() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left_open(server: WebDAVServer) -> Iterator[None]:
    yield
    assert server.wait_for_connections(0) == 0


@pytest.fixture
def filesystem(server: WebDAVServer) -> Iterator[Any]:
    filesystem = fsspec.filesystem("webdav", skip_instance_cache=True, **server.storage_options)
    yield filesystem
    filesystem.client.http.close()


def test_files(filesystem: Any) -> None:
    check_files(filesystem, "files")


def test_missing_files(filesystem: Any) -> None:
    check_missing(filesystem, "")


def test_urls_do_not_name_the_server(server: WebDAVServer) -> None:
    (server.root / "a").mkdir()
    (server.root / "a/x").write_bytes(b"x")
    filesystem, path = fsspec.url_to_fs("webdav://a/x", skip_instance_cache=True, **server.storage_options)
    with closing(filesystem.client.http):
        assert filesystem.cat_file(path) == b"x"


def test_wrong_password_is_refused(server: WebDAVServer) -> None:
    assert server.request("GET", "/x")[0] == 401


def test_connections_are_counted_while_they_last(server: WebDAVServer) -> None:
    opened = server.opened()
    filesystem = fsspec.filesystem("webdav", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 0
    filesystem.pipe_file("counted", b"x")
    assert [filesystem.cat_file("counted") for _ in range(3)] == [b"x"] * 3
    assert (server.connections(), server.opened() - opened) == (1, 1)
    filesystem.client.http.close()
    assert server.wait_for_connections(0) == 0


def test_many_idle_connections_are_left_to_the_client(server: WebDAVServer) -> None:
    with ExitStack() as stack:
        for number in range(1, 41):
            connection = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port)))
            connection.request("GET", "/x")
            connection.getresponse().read()
            assert server.connections() == number
