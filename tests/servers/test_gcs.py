"""What gcsfs gets from the server of Google's JSON API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.servers import GCSServer, gcs_server
from tests.servers._clients import client
from tests.servers._process import REPOSITORY_ROOT

GCSFileSystem = pytest.importorskip("gcsfs.core").GCSFileSystem
ExtendedGcsFileSystem = pytest.importorskip("gcsfs.extended_gcsfs").ExtendedGcsFileSystem


@pytest.fixture(scope="module")
def server() -> Iterator[GCSServer]:
    with gcs_server() as server:
        yield server


@pytest.fixture(params=[GCSFileSystem, ExtendedGcsFileSystem])
async def filesystem(request: pytest.FixtureRequest, server: GCSServer) -> AsyncIterator[Any]:
    async with client(request.param, server) as filesystem:
        yield filesystem


@pytest.fixture
def bucket(server: GCSServer) -> str:
    return server.create_bucket(f"test-{uuid.uuid4().hex}")


async def test_buckets_come_and_go(filesystem: Any) -> None:
    name = f"test-{uuid.uuid4().hex}"
    assert not await filesystem._exists(name)
    await filesystem._mkdir(name)
    assert (await filesystem._info(name))["type"] == "directory"
    assert f"{name}/" in {entry["name"] for entry in await filesystem._ls("", detail=True)}
    await filesystem._pipe_file(f"{name}/x", b"x")
    with pytest.raises(Exception, match="not empty"):
        await filesystem._rmdir(name)
    await filesystem._rm_file(f"{name}/x")
    await filesystem._rmdir(name)
    filesystem.invalidate_cache()
    assert not await filesystem._exists(name)


async def test_bucket_that_exists_is_not_made_again(filesystem: Any, bucket: str) -> None:
    with pytest.raises(Exception, match="already own it"):
        await filesystem._mkdir(bucket)


async def test_missing_buckets_are_not_found(filesystem: Any) -> None:
    with pytest.raises(FileNotFoundError):
        await filesystem._cat_file("no-such-bucket/x")
    with pytest.raises(FileNotFoundError):
        await filesystem._pipe_file("no-such-bucket/x", b"x")
    with pytest.raises(FileNotFoundError):
        await filesystem._ls("no-such-bucket")


@pytest.mark.parametrize("size", [2**18, 2**18 + 1, 5 * 2**18, 5 * 2**18 + 7])
async def test_uploads_arrive_in_several_chunks(filesystem: Any, server: GCSServer, bucket: str, size: int) -> None:
    content = os.urandom(size)
    before = server.requests()
    await filesystem._pipe_file(f"{bucket}/x", content, chunksize=2**18, consistency="md5")
    assert server.requests() - before == 1 + -(-size // 2**18)
    assert await filesystem._cat_file(f"{bucket}/x") == content


def test_files_are_written_block_by_block(server: GCSServer, bucket: str) -> None:
    content = os.urandom(3 * 2**18 + 5)
    program = """
import sys, json, gcsfs.core
filesystem = gcsfs.core.GCSFileSystem(**json.loads(sys.argv[1]))
with filesystem.open(sys.argv[2], "wb", block_size=2**18) as file:
    file.write(sys.stdin.buffer.read())
"""
    command = [sys.executable, "-c", program, json.dumps(server.storage_options), f"{bucket}/x"]
    subprocess.run(command, input=content, cwd=REPOSITORY_ROOT, check=True, timeout=30)
    path = f"/download/storage/v1/b/{bucket}/o/x?alt=media"
    assert server.request("GET", path)[2] == content


async def test_content_may_look_like_a_part_of_the_message(filesystem: Any, bucket: str) -> None:
    for content in (b"\n\n", b"\r\n", b"\n--==0==\n\n", b"\n--==0==--", b""):
        await filesystem._pipe_file(f"{bucket}/x", content)
        assert await filesystem._cat_file(f"{bucket}/x") == content


async def test_metadata_is_kept_and_changed(filesystem: Any, bucket: str) -> None:
    fields = {"cache_control": "no-store"}
    await filesystem._pipe_file(
        f"{bucket}/x", b"x", metadata={"a": "1", "b": "2"}, content_type="text/plain", fixed_key_metadata=fields
    )
    info = await filesystem._info(f"{bucket}/x")
    assert info["metadata"] == {"a": "1", "b": "2"}
    assert (info["contentType"], info["cacheControl"], info["size"]) == ("text/plain", "no-store", 1)
    assert info["mtime"] >= info["ctime"]
    assert await filesystem._setxattrs(f"{bucket}/x", a="3", b=None) == {"a": "3"}


async def test_listing_has_prefixes_and_pages(server: GCSServer, bucket: str, filesystem: Any) -> None:
    for name in ("a/1", "a/2", "b", "c/1/2", "d", "e/f"):
        await filesystem._pipe_file(f"{bucket}/{name}", b"x")

    def pages(query: str) -> list[list[str]]:
        found, token = [], ""
        while True:
            _, _, answer = server.request("GET", f"/storage/v1/b/{bucket}/o?{query}{token}")
            page = json.loads(answer)
            found.append(sorted([item["name"] for item in page.get("items", [])] + page.get("prefixes", [])))
            if "nextPageToken" not in page:
                return found
            token = f"&pageToken={page['nextPageToken']}"

    assert pages("maxResults=4") == [["a/1", "a/2", "b", "c/1/2"], ["d", "e/f"]]
    assert pages("delimiter=/&maxResults=2") == [["a/", "b"], ["c/", "d"], ["e/"]]
    assert pages("prefix=c/&delimiter=/") == [["c/1/"]]
    assert pages("prefix=a") == [["a/1", "a/2"]]
    assert pages("prefix=x") == [[]]
    assert pages("startOffset=b&endOffset=d") == [["b", "c/1/2"]]


async def test_long_listings_are_read_to_the_end(server: GCSServer, bucket: str) -> None:
    for number in range(1010):
        server.request("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name=many/{number}", b"x")
    async with client(GCSFileSystem, server) as filesystem:
        before = server.requests()
        assert len(await filesystem._find(f"{bucket}/many")) == 1010
        assert server.requests() - before == 2


async def test_batches_delete_what_is_there(filesystem: Any, bucket: str) -> None:
    for name in ("a b", "c/d", "kept"):
        await filesystem._pipe_file(f"{bucket}/{name}", b"x")
    deleted, missing, also_deleted = await filesystem._rm_files([f"{bucket}/a b", f"{bucket}/missing", f"{bucket}/c/d"])
    assert (deleted, also_deleted) == (f"{bucket}/a b", f"{bucket}/c/d")
    assert "No such object" in str(missing)
    assert await filesystem._find(bucket) == [f"{bucket}/kept"]


async def test_folders_are_deleted(filesystem: Any, bucket: str) -> None:
    for number in range(7):
        await filesystem._pipe_file(f"{bucket}/a/{number}", b"x")
    await filesystem._rm(f"{bucket}/a", recursive=True)
    assert await filesystem._find(bucket) == []
    with pytest.raises(FileNotFoundError):
        await filesystem._rm_file(f"{bucket}/a/1")


async def test_objects_are_copied_moved_and_joined(filesystem: Any, bucket: str) -> None:
    await filesystem._pipe_file(f"{bucket}/a/x", b"x", content_type="text/plain")
    await filesystem._cp_file(f"{bucket}/a/x", f"{bucket}/b/x")
    await filesystem._mv_file(f"{bucket}/a/x", f"{bucket}/c x")
    assert await filesystem._cat_file(f"{bucket}/b/x") == await filesystem._cat_file(f"{bucket}/c x") == b"x"
    assert (await filesystem._info(f"{bucket}/b/x"))["contentType"] == "text/plain"
    await filesystem._merge(f"{bucket}/d", [f"{bucket}/b/x", f"{bucket}/c x"])
    assert await filesystem._cat_file(f"{bucket}/d") == b"xx"
    with pytest.raises(FileNotFoundError):
        await filesystem._cp_file(f"{bucket}/a/x", f"{bucket}/e")


async def test_objects_that_exist_are_not_created_again(filesystem: Any, bucket: str) -> None:
    for chunksize in (2**18, 1):
        key = f"{bucket}/x{chunksize}"
        await filesystem._pipe_file(key, b"x", mode="create", chunksize=chunksize)
        with pytest.raises(FileExistsError):
            await filesystem._pipe_file(key, b"x", mode="create", chunksize=chunksize)


def test_clients_trust_the_certificate_by_environment() -> None:
    program = """
import sys, json, gcsfs.core
filesystem = gcsfs.core.GCSFileSystem(**json.loads(sys.argv[1]))
filesystem.pipe_file("bucket/x", b"x" * 300000, chunksize=2**18)
assert filesystem.cat_file("bucket/x") == b"x" * 300000
"""
    with gcs_server(tls=True) as server:
        server.create_bucket("bucket")
        environment = {**os.environ, "SSL_CERT_FILE": str(server.ca_file)}
        command = [sys.executable, "-c", program, json.dumps(server.storage_options)]
        subprocess.run(command, cwd=REPOSITORY_ROOT, env=environment, check=True, timeout=30)
