"""What the two servers of folders do: the one of aiohttp and nginx."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.servers import FolderServer, http_server, nginx_server
from tests.servers._clients import client, needs_nginx
from tests.servers._process import REPOSITORY_ROOT
from tests.servers._ranges import ByteRange, UnsatisfiableRangeError, parse_range

HTTPFileSystem = pytest.importorskip("fsspec.implementations.http").HTTPFileSystem
STARTERS = {"http": http_server, "nginx": nginx_server}
every_kind = ["http", pytest.param("nginx", marks=needs_nginx)]


@pytest.fixture(scope="module", params=every_kind)
def server(request: pytest.FixtureRequest) -> Iterator[FolderServer]:
    with STARTERS[request.param]() as server:
        yield server


@pytest.fixture(scope="module", params=every_kind)
def tls_server(request: pytest.FixtureRequest) -> Iterator[FolderServer]:
    with STARTERS[request.param](tls=True) as server:
        yield server


def test_writing_makes_folders_and_deleting_ends_the_file(server: FolderServer) -> None:
    assert server.request("PUT", "/w/x/y", b"old")[0] == 201
    assert server.request("PUT", "/w/x/y", b"new")[0] == 204
    assert (server.root / "w/x/y").read_bytes() == b"new"
    assert server.request("DELETE", "/w/x/y")[0] == 204
    assert server.request("GET", "/w/x/y")[0] == 404
    assert server.request("DELETE", "/w/x/y")[0] == 404
    assert not (server.root / "w/x/y").exists()


def test_large_bodies_are_taken_and_given_whole(server: FolderServer) -> None:
    content = os.urandom(5_000_000)
    server.request("PUT", "/large", content)
    assert server.request("GET", "/large")[2] == content


def test_head_tells_the_size_alone(server: FolderServer) -> None:
    server.request("PUT", "/head", b"12345")
    status, headers, body = server.request("HEAD", "/head")
    assert (status, headers["content-length"], headers["accept-ranges"], body) == (200, "5", "bytes", b"")


def test_paths_lead_nowhere_else(server: FolderServer) -> None:
    for path in ("/../etc/passwd", "/a/../../etc/passwd", "/%2e%2e/etc/passwd"):
        assert server.request("GET", path)[0] in {400, 404}


def test_refused_requests_leave_the_connection_usable(server: FolderServer) -> None:
    opened = server.opened()
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        for method in ("GET", "DELETE", "GET"):
            connection.request(method, "/missing")
            response = connection.getresponse()
            response.read()
            assert response.status == 404
        assert server.connections() == 1
    assert server.opened() - opened == 1


async def test_two_thousand_small_objects_are_read_quickly(server: FolderServer) -> None:
    folder = server.root / "many"
    folder.mkdir()
    for number in range(2000):
        (folder / str(number)).write_bytes(b"x" * 100)
    async with client(HTTPFileSystem, server) as filesystem:
        started = time.perf_counter()
        contents = await asyncio.gather(*(filesystem._cat_file(f"{server.url}/many/{n}") for n in range(2000)))
        # About 0.6 s are usual, most of them in the client.
        assert time.perf_counter() - started < 10
    assert contents == [b"x" * 100] * 2000


async def test_latency_delays_each_request() -> None:
    with http_server(latency=0.1) as server:
        (server.root / "x").write_bytes(b"x")
        async with client(HTTPFileSystem, server) as filesystem:
            started = time.perf_counter()
            await asyncio.gather(*(filesystem._cat_file(f"{server.url}/x") for _ in range(10)))
            assert 0.1 <= time.perf_counter() - started < 0.9


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_clients_trust_the_certificate_by_environment(tls_server: FolderServer, host: str) -> None:
    (tls_server.root / "a").mkdir(exist_ok=True)
    (tls_server.root / "a/x").write_bytes(b"by tls")
    program = """
import sys, fsspec
filesystem = fsspec.filesystem("https")
assert filesystem.cat_file(sys.argv[1] + "/a/x") == b"by tls"
assert filesystem.find(sys.argv[1]) == [sys.argv[1] + "/a/x"]
"""
    url = tls_server.url.replace("127.0.0.1", host)
    environment = {**os.environ, "SSL_CERT_FILE": str(tls_server.ca_file)}
    subprocess.run([sys.executable, "-c", program, url], cwd=REPOSITORY_ROOT, env=environment, check=True, timeout=30)
    assert tls_server.wait_for_connections(0) == 0


def test_empty_folders_are_not_kept_by_the_aiohttp_server(tmp_path: Path) -> None:
    with http_server(tmp_path) as server:
        server.request("PUT", "/a/b/c", b"x")
        server.request("PUT", "/a/d", b"x")
        server.request("DELETE", "/a/b/c")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=2-", ByteRange(2, 10)),
        ("bytes=2-99", ByteRange(2, 10)),
        ("bytes=-3", ByteRange(7, 10)),
        ("bytes=-99", ByteRange(0, 10)),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ],
)
def test_range_headers_are_understood(header: str | None, expected: ByteRange | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)])
def test_ranges_without_a_byte_are_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, size)
