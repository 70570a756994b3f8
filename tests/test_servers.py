"""What the clients get from every one of the servers, and what each server tells of its clients."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from tests.servers import (
    BucketServer,
    FolderServer,
    GCSServer,
    RunningServer,
    S3Server,
    gcs_server,
    http_server,
    nginx_server,
    s3_server,
)
from tests.servers._clients import client, close_filesystem, needs_nginx, private_filesystem

# Which fixture serves, and where the client's class is.
CLIENTS = {
    "http": ("http", "fsspec.implementations.http", "HTTPFileSystem"),
    "nginx": ("nginx", "fsspec.implementations.http", "HTTPFileSystem"),
    "gcs": ("gcs", "gcsfs.core", "GCSFileSystem"),
    "gcs-extended": ("gcs", "gcsfs.extended_gcsfs", "ExtendedGcsFileSystem"),
    "s3": ("s3", "s3fs", "S3FileSystem"),
}


@dataclass(frozen=True)
class Backend:
    """A server, its client, and a place of the test's own on it."""

    name: str
    server: RunningServer
    filesystem_class: Callable[..., Any]
    root: str

    def client(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        return client(self.filesystem_class, self.server, **options)

    async def request_path(self, filesystem: Any, key: str) -> str:
        """Where a client other than fsspec finds the object."""
        if isinstance(self.server, S3Server):
            url: str = await filesystem._url(f"{self.root}/{key}")
        elif isinstance(self.server, GCSServer):
            url = filesystem.url(f"{self.root}/{key}")
        else:
            url = f"{self.root}/{key}"
        return url.removeprefix(self.server.url)


@pytest.fixture(scope="module")
def http() -> Iterator[FolderServer]:
    with http_server() as server:
        yield server


@pytest.fixture(scope="module")
def nginx() -> Iterator[FolderServer]:
    with nginx_server() as server:
        yield server


@pytest.fixture(scope="module")
def gcs() -> Iterator[GCSServer]:
    with gcs_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=[pytest.param(name, marks=[needs_nginx] if name == "nginx" else []) for name in CLIENTS])
def backend(request: pytest.FixtureRequest) -> Backend:
    fixture, module, class_name = CLIENTS[request.param]
    filesystem_class = getattr(pytest.importorskip(module), class_name)
    server: RunningServer = request.getfixturevalue(fixture)
    name = f"test-{uuid.uuid4().hex}"
    root = f"{server.create_bucket(name) if isinstance(server, BucketServer) else f'{server.url}/{name}'}/data"
    return Backend(request.param, server, filesystem_class, root)


async def connections_in_the_end(server: RunningServer) -> int:
    return await asyncio.to_thread(server.wait_for_connections, 0)


async def test_reads_give_the_bytes_asked_for(backend: Backend) -> None:
    key = f"{backend.root}/a/b/c"
    async with backend.client() as filesystem:
        await filesystem._pipe_file(key, b"0123456789")
        assert await filesystem._cat_file(key) == b"0123456789"
        assert await filesystem._cat_file(key, start=2, end=5) == b"234"
        assert await filesystem._cat_file(key, start=7) == b"789"
        assert await filesystem._cat_file(key, start=7, end=100) == b"789"
        assert await filesystem._cat_file(key, start=-3) == b"789"
        assert await filesystem._cat_file(key, start=-30) == b"0123456789"
        assert (await filesystem._info(key))["size"] == 10
        await filesystem._pipe_file(key, b"abc")
        assert await filesystem._cat_file(key) == b"abc"


async def test_missing_objects_are_not_found(backend: Backend) -> None:
    async with backend.client() as filesystem:
        for key in ("x", "x/y", "x y"):
            with pytest.raises(FileNotFoundError):
                await filesystem._cat_file(f"{backend.root}/{key}")


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=-0"])
async def test_unsatisfiable_ranges_are_refused(backend: Backend, wanted: str) -> None:
    async with backend.client() as filesystem:
        await filesystem._pipe_file(f"{backend.root}/x", b"0123456789")
        path = await backend.request_path(filesystem, "x")
    status, _, _ = backend.server.request("GET", path, headers={"Range": wanted})
    assert status == 416


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=0-5", "bytes=-5"])
async def test_no_range_of_an_empty_object_can_be_satisfied(backend: Backend, wanted: str) -> None:
    async with backend.client() as filesystem:
        await filesystem._pipe_file(f"{backend.root}/x", b"")
        assert await filesystem._cat_file(f"{backend.root}/x") == b""
        path = await backend.request_path(filesystem, "x")
    status, _, body = backend.server.request("GET", path, headers={"Range": wanted})
    # nginx ignores any such range, and moto a suffix: the standard allows that as well.
    assert status == 416 or (backend.name in {"nginx", "s3"} and (status, body) == (200, b""))


async def test_listing_goes_into_folders(backend: Backend) -> None:
    keys = {f"{backend.root}/{key}" for key in ("a/b/c", "a/b-d", "e")}
    async with backend.client() as filesystem:
        for key in keys:
            await filesystem._pipe_file(key, b"x")
        assert set(await filesystem._find(backend.root)) == keys
        listing = await filesystem._ls(backend.root, detail=True)
    types = {entry["name"].rstrip("/"): entry["type"] for entry in listing}
    assert types == {f"{backend.root}/a": "directory", f"{backend.root}/e": "file"}


async def test_names_with_special_characters_are_kept(backend: Backend) -> None:
    keys = [f"{backend.root}/{key}" for key in ("a b", "ü", "c.d~e", "f+g", "h=i&j")]
    async with backend.client() as filesystem:
        for key in keys:
            await filesystem._pipe_file(key, key.encode())
        for key in keys:
            assert await filesystem._cat_file(key) == key.encode()


async def test_one_connection_serves_many_requests(backend: Backend) -> None:
    async with backend.client() as filesystem:
        await filesystem._pipe_file(f"{backend.root}/x", b"x" * 1000)
        before = backend.server.statistics()
        for _ in range(20):
            await filesystem._cat_file(f"{backend.root}/x")
            await filesystem._pipe_file(f"{backend.root}/y", b"y" * 1000)
            with pytest.raises(FileNotFoundError):
                await filesystem._cat_file(f"{backend.root}/missing")
        after = backend.server.statistics()
    # Not exactly: before s3fs reads a whole object, it asks for its size.
    assert after.requests - before.requests >= 60
    assert after.opened == before.opened
    assert after.connections == before.connections


async def test_server_sees_pooled_connections_until_the_client_closes_them(backend: Backend) -> None:
    assert await connections_in_the_end(backend.server) == 0
    async with backend.client() as filesystem:
        await filesystem._pipe_file(f"{backend.root}/x", b"x")
        await asyncio.gather(*(filesystem._cat_file(f"{backend.root}/x") for _ in range(8)))
        assert 1 <= backend.server.connections() <= 8
    assert await connections_in_the_end(backend.server) == 0


async def test_server_answers_to_the_name_localhost(backend: Backend) -> None:
    named = {"endpoint_url": backend.server.localhost_url} if isinstance(backend.server, BucketServer) else {}
    root = backend.root.replace(backend.server.url, backend.server.localhost_url)
    async with backend.client(**named) as filesystem:
        await filesystem._pipe_file(f"{root}/x", b"x")
        assert await filesystem._cat_file(f"{root}/x") == b"x"


def test_zarr_writes_and_reads_groups(backend: Backend) -> None:
    filesystem = private_filesystem(backend.filesystem_class, backend.server)
    store = FsspecStore(filesystem, path=backend.root)
    try:
        group = zarr.create_group(store, attributes={"title": "a test"})
        group.create_array("values", shape=(10, 10), chunks=(5, 5), shards=(10, 10), dtype="i4")[:] = 7
        # gcsfs goes on believing a listing from before the write.
        filesystem.invalidate_cache()
        again = zarr.open_group(store, mode="r")
        assert again.attrs["title"] == "a test"
        values = again["values"]
        assert isinstance(values, zarr.Array)
        assert values[2:4, 3:4].tolist() == [[7], [7]]  # type: ignore[union-attr]
        assert [name for name, _ in again.members()] == ["values"]
    finally:
        sync(close_filesystem(filesystem))
    assert backend.server.wait_for_connections(0) == 0
