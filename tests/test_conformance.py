"""zarr's own conformance suite for stores, over every backend; over HTTP with each exemption named."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from zarr.core.buffer import Buffer, cpu
from zarr.testing.store import StoreTests

from managed_store import ManagedFSSpecStore
from tests.servers import FolderServer, GCSServer, S3Server

# moto reads no signature, and takes a request without one for a stranger's, who may not read.
AUTHORIZATION = {"Authorization": "unchecked"}
CONTENT_TYPE = {"Content-Type": "application/octet-stream"}


class RememberedStore(ManagedFSSpecStore):
    """A managed store that is closed after the test: the suite opens stores and forgets them.

    Every way of making a handle, `with_read_only` and unpickling included, comes through ``__new__``.
    """

    made: ClassVar[list[RememberedStore]] = []

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the new handle."""
        store = super().__new__(cls)
        cls.made.append(store)
        return store


class ConformanceTests(StoreTests[RememberedStore, cpu.Buffer]):
    """zarr's suite. A backend says where a test's own empty root is, and how to reach it without any store."""

    store_cls = RememberedStore
    buffer_cls = cpu.Buffer
    supports_deletes = True
    url: str
    options: ClassVar[dict[str, Any]] = {}

    def write(self, key: str, content: bytes) -> None:
        """Write an object past the store."""
        raise NotImplementedError

    def read(self, key: str) -> bytes:
        """Read an object past the store."""
        raise NotImplementedError

    async def set(self, store: RememberedStore, key: str, value: Buffer) -> None:
        """Answer the suite, whose tests write with this to see what the store reads."""
        self.write(key, value.to_bytes())

    async def get(self, store: RememberedStore, key: str) -> Buffer:
        """Answer the suite, whose tests read with this to see what the store has written."""
        return self.buffer_cls.from_bytes(self.read(key))

    @pytest.fixture(autouse=True)
    async def close_every_store(self) -> AsyncIterator[None]:
        """Close what the test has made, on its own loop and on zarr's."""
        yield
        while RememberedStore.made:
            await RememberedStore.made.pop().aclose()

    @pytest.fixture
    def store_kwargs(self, root: None) -> dict[str, Any]:
        """How the suite makes the store: over the root that the backend's fixture `root` has prepared."""
        return {"url": self.url, "storage_options": self.options}

    def test_store_repr(self, store: RememberedStore) -> None:
        """The repr names the store and its state, and opens nothing."""
        assert repr(store) == f"<ManagedStore {self.url!r} new loops=0 handles=1>"

    def test_store_supports_writes(self, store: RememberedStore) -> None:
        """Every one of these backends can write."""
        assert store.supports_writes

    def test_store_supports_listing(self, store: RememberedStore) -> None:
        """Every one of these backends can list."""
        assert store.supports_listing

    def test_store_supports_deletes(self, store: RememberedStore) -> None:
        """What the store says of deleting is true of the backend."""
        assert store.supports_deletes is self.supports_deletes


class TestMemory(ConformanceTests):
    """A folder in memory."""

    @pytest.fixture
    def root(self) -> None:
        self.folder = f"/conformance-{uuid.uuid4().hex}"
        self.url = f"memory:/{self.folder}"

    def write(self, key: str, content: bytes) -> None:
        MemoryFileSystem(skip_instance_cache=True).pipe_file(f"{self.folder}/{key}", content)

    def read(self, key: str) -> bytes:
        return bytes(MemoryFileSystem(skip_instance_cache=True).cat_file(f"{self.folder}/{key}"))


class TestMemoryRoot(TestMemory):
    """All of the memory filesystem, whose path is empty."""

    @pytest.fixture
    def root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A world of its own: `clear` empties all that there is.
        monkeypatch.setattr(MemoryFileSystem, "store", {})
        monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
        self.folder = ""
        self.url = "memory://"


class TestFile(ConformanceTests):
    """A local folder that does not exist yet."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "folder"
        self.url = f"file://{self.folder}"

    def write(self, key: str, content: bytes) -> None:
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).write_bytes(content)

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()


class TestPlainPath(TestFile):
    """A local folder that exists, by a plain path with characters that mean something in a URL."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "a folder, 50% ü+"
        self.folder.mkdir()
        self.url = os.fspath(self.folder)


class TestS3(ConformanceTests):
    """A prefix in a bucket of S3."""

    prefix = "data.zarr/"

    @pytest.fixture
    def root(self, s3: S3Server) -> Iterator[None]:
        self.server = s3
        self.bucket = s3.create_bucket(f"conformance-{uuid.uuid4().hex}")
        self.options = s3.storage_options
        self.url = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        yield
        assert s3.request("HEAD", f"/{self.bucket}")[0] == 200, "the bucket was deleted"

    def write(self, key: str, content: bytes) -> None:
        assert self.server.request("PUT", f"/{self.bucket}/{self.prefix}{quote(key)}", content)[0] == 200

    def read(self, key: str) -> bytes:
        path = f"/{self.bucket}/{self.prefix}{quote(key)}"
        status, _, content = self.server.request("GET", path, headers=AUTHORIZATION)
        assert status == 200
        return content


class TestS3Bucket(TestS3):
    """A whole bucket of S3: `clear` empties it, and the bucket itself stays."""

    prefix = ""


class TestGCS(ConformanceTests):
    """A prefix in a bucket of GCS, by the class that gcsfs registers (`ExtendedGcsFileSystem`)."""

    prefix = "data.zarr/"

    @pytest.fixture
    def root(self, gcs: GCSServer) -> Iterator[None]:
        self.server = gcs
        self.bucket = gcs.create_bucket(f"conformance-{uuid.uuid4().hex}")
        self.options = gcs.storage_options
        self.url = f"gs://{self.bucket}/{self.prefix}".rstrip("/")
        yield
        assert gcs.request("GET", f"/storage/v1/b/{self.bucket}")[0] == 200, "the bucket was deleted"

    def write(self, key: str, content: bytes) -> None:
        name = quote(self.prefix + key, safe="")
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={name}"
        assert self.server.request("POST", path, content, CONTENT_TYPE)[0] == 200

    def read(self, key: str) -> bytes:
        name = quote(self.prefix + key, safe="")
        status, _, content = self.server.request("GET", f"/download/storage/v1/b/{self.bucket}/o/{name}?alt=media")
        assert status == 200
        return content


class TestGCSBucket(TestGCS):
    """A whole bucket of GCS: `clear` empties it, and the bucket itself stays."""

    prefix = ""


CANNOT_DELETE = "fsspec's HTTP filesystem has no delete"


class TestHTTP(ConformanceTests):
    """A folder on a server that accepts PUT and sends an index page for each folder.

    Exempt, because fsspec's HTTP filesystem cannot delete: the suite's own `test_delete`, `test_delete_dir` and
    `test_delete_nonexistent_key_does_not_raise` skip themselves where `supports_deletes` is False; `test_clear` and
    the last lines of `test_with_read_only_store` do not, and are replaced here by what happens instead.
    """

    supports_deletes = False

    @pytest.fixture
    def root(self, http: FolderServer) -> None:
        self.server = http
        self.folder = f"/conformance-{uuid.uuid4().hex}"
        self.url = http.url + self.folder

    def write(self, key: str, content: bytes) -> None:
        assert self.server.request("PUT", f"{self.folder}/{quote(key)}", content)[0] in (201, 204)

    def read(self, key: str) -> bytes:
        status, _, content = self.server.request("GET", f"{self.folder}/{quote(key)}")
        assert status == 200
        return content

    async def test_clear(self, store: RememberedStore) -> None:
        """Exempt: HTTP cannot delete. `clear` says so, and leaves the data alone."""
        self.write("key", b"something")
        with pytest.raises(NotImplementedError, match=CANNOT_DELETE):
            await store.clear()
        assert self.read("key") == b"something"

    async def test_delete_is_refused(self, store: RememberedStore) -> None:
        """In place of `test_delete` and `test_delete_dir`: both say what cannot be done, and leave the data alone."""
        self.write("folder/key", b"something")
        with pytest.raises(NotImplementedError, match=CANNOT_DELETE):
            await store.delete("folder/key")
        with pytest.raises(NotImplementedError, match=CANNOT_DELETE):
            await store.delete_dir("folder")
        assert self.read("folder/key") == b"something"

    async def test_delete_of_a_missing_key_does_nothing(self, store: RememberedStore) -> None:
        """In place of `test_delete_nonexistent_key_does_not_raise`: zarr deletes empty chunks that were never there."""
        await store.delete("nonexistent_key")

    async def test_with_read_only_store(self, open_kwargs: dict[str, Any]) -> None:
        """Exempt: the suite's own test deletes. A read-only store refuses writes, and its writable handle does not."""
        reader = await self.store_cls.open(**{**open_kwargs, "read_only": True})
        writer = reader.with_read_only(read_only=False)
        assert not writer._is_open
        assert not writer.read_only
        await writer.set("foo", self.buffer_cls.from_bytes(b"bar"))
        for read_only in (reader, writer.with_read_only(read_only=True)):
            assert read_only.read_only
            with pytest.raises(ValueError, match="read-only mode and does not support writing"):
                await read_only.set("foo", self.buffer_cls.from_bytes(b"other"))
            with pytest.raises(ValueError, match="read-only mode and does not support writing"):
                await read_only.delete("foo")
        assert self.read("foo") == b"bar"
