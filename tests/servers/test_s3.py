"""What s3fs gets from moto when the connection stays open."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.servers import S3Server, s3_server
from tests.servers._clients import client

S3FileSystem = pytest.importorskip("s3fs").S3FileSystem


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
async def filesystem(server: S3Server) -> AsyncIterator[Any]:
    async with client(S3FileSystem, server) as filesystem:
        yield filesystem


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.create_bucket(f"test-{uuid.uuid4().hex}")


async def test_buckets_come_and_go(filesystem: Any) -> None:
    name = f"test-{uuid.uuid4().hex}"
    await filesystem._mkdir(name)
    assert await filesystem._exists(name)
    await filesystem._rmdir(name)
    assert not await filesystem._exists(name)


async def test_large_objects_arrive_in_parts(filesystem: Any, bucket: str) -> None:
    content = os.urandom(12 * 2**20)
    await filesystem._pipe_file(f"{bucket}/x", content, chunksize=5 * 2**20)
    assert await filesystem._cat_file(f"{bucket}/x") == content


async def test_objects_are_copied_and_deleted(filesystem: Any, bucket: str) -> None:
    for number in range(5):
        await filesystem._pipe_file(f"{bucket}/a/{number}", b"x")
    await filesystem._cp_file(f"{bucket}/a/0", f"{bucket}/b")
    await filesystem._rm(f"{bucket}/a", recursive=True)
    filesystem.invalidate_cache()
    assert await filesystem._find(bucket) == [f"{bucket}/b"]


async def test_refused_writes_leave_the_connection_usable(server: S3Server, filesystem: Any, bucket: str) -> None:
    await filesystem._pipe_file(f"{bucket}/x", b"x")
    opened = server.opened()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            await filesystem._pipe_file("no-such-bucket/x", b"x" * 1_000_000)
        assert await filesystem._cat_file(f"{bucket}/x") == b"x"
    assert server.opened() == opened


def test_answers_fit_a_connection_that_stays_open(server: S3Server, bucket: str) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        for method, path in [
            ("GET", f"/{bucket}"),
            ("HEAD", f"/{bucket}"),
            ("DELETE", f"/{bucket}"),
            ("HEAD", f"/{bucket}"),
            ("PUT", f"/{bucket}"),
        ]:
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
            assert response.version == 11
            names = [name.lower() for name, _ in response.getheaders()]
            assert len(names) == len(set(names))
            assert "connection" not in names
        assert server.connections() == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
def test_bodies_are_read_to_their_end(server: S3Server, bucket: str, method: str) -> None:
    bodies: list[Any] = [b"abcdef" * 10_000, iter([b"abc", b"def"])]
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        for body in [*bodies, None]:
            # Refused or not, with a use for the body or none: the next request must be understood.
            connection.request(method, f"/{bucket}/x", body, encode_chunked=True)
            response = connection.getresponse()
            response.read()
            assert response.status in {200, 204, 403, 404}
        assert server.connections() == 1


def test_bucket_with_a_bad_name_is_an_error(server: S3Server) -> None:
    with pytest.raises(RuntimeError, match="InvalidBucketName"):
        server.create_bucket("b")
