"""zarr's FsspecStore with its faults mended: what a managed store wraps, one for each event loop.

What is mended here was seen on real servers, and each has a test in ``tests/test_reads_are_right.py``:

- a server that ignores ``Range`` sends the whole object, and fsspec passes it on as the part that was asked for;
- a range that begins at or after the end of an object is an error on some backends and empty on others;
- over HTTP a refused connection looks like a missing key, or like an empty listing;
- over HTTP the filesystem's own headers and TLS settings are left out of writes;
- ``SuffixByteRequest(0)`` reads the whole object;
- emptying a store whose root is a bucket deletes the bucket;
- listings repeat names, or keep the "/" that an HTTP index puts behind folders, on zarr 3.1.
"""

from __future__ import annotations

import asyncio
import errno
import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fsspec.core import split_protocol
from fsspec.implementations.reference import ReferenceFileSystem
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore

from managed_store._threaded import ThreadedFileSystem

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["WrappedFsspecStore", "can_delete", "wrap"]

_HTTP_PROTOCOLS = frozenset({"http", "https"})

# Layers that hand a write or a delete to the filesystem that they are laid over, and such as take none.
_PASS_WRITES_ON = frozenset(
    {"asyncwrapper", "async_wrapper", "blockcache", "cached", "dir", "filecache", "simplecache"}
)
_ARCHIVES = frozenset({"libarchive", "tar", "zip"})

# Asynchronous filesystems whose server takes a suffix range, and which pass it on. Of others nobody can say: adlfs
# raises an error, and one that counts wrong would give other bytes.
_SERVES_SUFFIXES = frozenset({"gs", "gcs", "s3", "s3a"})

_BYTE_REQUESTS = (RangeByteRequest, OffsetByteRequest, SuffixByteRequest)
_GONE = (404, 410)


def can_delete(protocols: Iterable[str]) -> bool:
    """Whether the filesystem of a chain, given its protocols, can delete. fsspec's HTTP filesystem has no way to."""
    written = next((each for each in protocols if each not in _PASS_WRITES_ON), "")
    return written not in _HTTP_PROTOCOLS | _ARCHIVES


def wrap(filesystem: AsyncFileSystem, path: str, allowed_exceptions: tuple[type[Exception], ...]) -> WrappedFsspecStore:
    """Wrap a filesystem of one event loop in the store that fits it. Writable: the handles above guard writing."""
    protocol = filesystem.protocol
    protocols = {protocol} if isinstance(protocol, str) else set(protocol)
    cls = WrappedFsspecStore
    if isinstance(filesystem, ReferenceFileSystem):
        cls = _ReferencesStore
    elif protocols & _HTTP_PROTOCOLS:
        cls = _IndexedStore if isinstance(filesystem, ThreadedFileSystem) else _HttpStore
    elif not (isinstance(filesystem, ThreadedFileSystem) or protocols & _SERVES_SUFFIXES):
        cls = _SizedStore
    return cls(filesystem, path=path.rstrip("/") or path, allowed_exceptions=allowed_exceptions)


class WrappedFsspecStore(FsspecStore):
    """zarr's store over one filesystem, answering every byte request and listing as any correct store would."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if byte_range is None:
            return await super().get(key, prototype)
        if _asks_for_nothing(byte_range):
            return prototype.buffer.from_bytes(b"") if await self.exists(key) else None
        try:
            return await super().get(key, prototype, byte_range)
        except Exception as error:
            if _status(error) == 416:  # the range begins at or after the end
                return prototype.buffer.from_bytes(b"")
            if isinstance(error, MemoryError | OverflowError) or getattr(error, "errno", None) == errno.EINVAL:
                return await self._get_within(key, prototype, byte_range)  # a local file does not go that far
            raise

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        # One by one, because fsspec's `_cat_ranges` has every fault that `get` mends.
        return list(await asyncio.gather(*(self.get(key, prototype, each) for key, each in key_ranges)))

    async def exists(self, key: str) -> bool:
        # Not `fs._exists`: older fsspec answers False there to every error.
        try:
            info = await self._info(key)
        except self.allowed_exceptions:
            return False
        return info.get("type") != "directory"

    async def getsize(self, key: str) -> int:
        info = await self._info(key)
        if info.get("type") == "directory":
            raise FileNotFoundError(key)
        size = info.get("size")
        return int(size) if size is not None else await super().getsize(key)

    async def clear(self) -> None:
        # The folders and objects below the root, not the root: that may be a bucket.
        children = [self._path(name) for name in await self.children("")]
        for child in children:
            try:
                await self.fs._rm(child, recursive=True)
            except self.allowed_exceptions:
                pass

    async def delete_dir(self, prefix: str) -> None:
        if prefix.strip("/"):
            await super().delete_dir(prefix.rstrip("/"))
        else:
            await self.clear()

    async def keys(self, prefix: str) -> list[str]:
        """All keys below `prefix`, relative to the root of the store."""
        return [key async for key in super().list_prefix(prefix) if key.startswith(prefix)]

    async def sizes(self, prefix: str) -> dict[str, int | None]:
        """All keys below the folder `prefix` with their sizes in bytes, None where the listing does not tell."""
        folder = self._path(prefix)
        found = await self.fs._find(folder, detail=True, withdirs=False)
        inside = self._inside(folder)
        return {self._key(path): info.get("size") for path, info in found.items() if path.startswith(inside)}

    async def children(self, prefix: str) -> list[str]:
        """The names directly below the folder `prefix`, each once, folders without a "/"."""
        folder = self._path(prefix)
        try:
            entries = await self._ls(folder)
        except self.allowed_exceptions:
            return []
        inside = self._inside(folder)
        names = (entry.removeprefix(inside).rstrip("/") for entry in entries if entry.startswith(inside))
        return [name for name in dict.fromkeys(names) if name and "/" not in name]

    async def _get_within(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest) -> Buffer | None:
        """Read a range after cutting it to the object: a local file takes a position far past its end for an error."""
        start, end, _ = _slice(byte_range).indices(await self.getsize(key))
        if start >= end:
            return prototype.buffer.from_bytes(b"")
        return await super().get(key, prototype, RangeByteRequest(start, end))

    def _path(self, key: str) -> str:
        key = key.strip("/")
        return f"{self._inside(self.path)}{key}" if key else self.path

    def _inside(self, folder: str) -> str:
        """What the paths of all that is in a folder begin with."""
        return f"{folder.rstrip('/')}/" if folder else str(self.fs.root_marker)

    def _key(self, path: str) -> str:
        return path.removeprefix(self.path).lstrip("/")

    async def _info(self, key: str) -> dict[str, Any]:
        info: dict[str, Any] = await self.fs._info(self._path(key))
        return info

    async def _ls(self, folder: str) -> list[str]:
        # In detail, because without it some filesystems (ftp) leave out the folder.
        return [entry["name"] for entry in await self.fs._ls(folder, detail=True)]


class _SizedStore(WrappedFsspecStore):
    """The same over a filesystem that is not known to count from the end: the store asks for the size, and counts."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if not isinstance(byte_range, SuffixByteRequest) or _asks_for_nothing(byte_range):
            return await super().get(key, prototype, byte_range)
        try:
            return await self._get_within(key, prototype, byte_range)
        except self.allowed_exceptions:
            return None


class _ReferencesStore(WrappedFsspecStore):
    """The same over references, whose ranges can lead out of the part of a file that they stand for."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if not isinstance(byte_range, _BYTE_REQUESTS) or _asks_for_nothing(byte_range):
            return await super().get(key, prototype, byte_range)
        try:
            return await self._get_within(key, prototype, byte_range)
        except self.allowed_exceptions:
            return None

    async def _info(self, key: str) -> dict[str, Any]:
        path = self._path(key)
        part = self.fs.references.get(path)
        if isinstance(part, list | tuple) and len(part) == 1:  # a whole file: its own filesystem knows the size
            protocol, _ = split_protocol(part[0])
            return {"name": path, "type": "file", "size": await self.fs.fss[protocol]._size(part[0])}
        return await super()._info(key)


class _IndexedStore(WrappedFsspecStore):
    """The same over HTTP, where listings are the links of web pages; read by way of a local cache, say."""

    supports_deletes = False

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        # With the options of the filesystem (headers, ssl): fsspec leaves them out when it writes.
        options = {**self.fs.kwargs, "headers": dict(self.fs.kwargs.get("headers", {}))}
        await self.fs._pipe_file(self._path(key), value.to_bytes(), **options)

    async def delete(self, key: str) -> None:
        # zarr deletes chunks that hold nothing but the fill value, whether they are there or not.
        if await self.exists(key):
            raise NotImplementedError(f"key {key!r} cannot be deleted: fsspec's HTTP filesystem has no delete.")

    async def delete_dir(self, prefix: str) -> None:
        raise NotImplementedError(f"folder {prefix!r} cannot be deleted: fsspec's HTTP filesystem has no delete.")

    async def clear(self) -> None:
        raise NotImplementedError("the store cannot be cleared: fsspec's HTTP filesystem has no delete.")

    async def keys(self, prefix: str) -> list[str]:
        return list(await self.sizes(prefix))

    async def sizes(self, prefix: str) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        folders = [self._path(prefix)]
        while folders:
            folder = folders.pop()
            for entry in await self._entries(folder):
                if entry.endswith("/"):
                    folders.append(entry.rstrip("/"))
                else:
                    found[self._key(entry)] = None  # an index page does not tell sizes
        return found

    async def _entries(self, folder: str) -> list[str]:
        try:
            return await self._ls(folder)
        except self.allowed_exceptions:
            return []

    async def _ls(self, folder: str) -> list[str]:
        # With the "/" of a folder's own URL: without it many servers answer with a redirection first.
        try:
            entries = await self.fs._ls(f"{folder}/", detail=False)
        except Exception as error:
            if _status(error) in _GONE:  # fsspec knows 404 alone
                raise FileNotFoundError(folder) from error
            raise
        return list(dict.fromkeys(filter(None, (_below(folder, entry) for entry in entries))))

    async def _info(self, key: str) -> dict[str, Any]:
        try:
            return await super()._info(key)
        except FileNotFoundError as error:
            # fsspec says so of every failure, with the real one as the cause.
            cause = error.__cause__
            if cause is None or isinstance(cause, FileNotFoundError) or _status(cause) in _GONE:
                raise
            raise cause from None


class _HttpStore(_IndexedStore):
    """The same over fsspec's HTTP filesystem itself."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            if isinstance(byte_range, _BYTE_REQUESTS) and not _asks_for_nothing(byte_range):
                return prototype.buffer.from_bytes(await self._get_part(key, byte_range))
            return await super().get(key, prototype, byte_range)
        except self.allowed_exceptions:
            return None
        except Exception as error:
            if _status(error) in _GONE:  # fsspec knows 404 alone
                return None
            raise

    async def _get_part(self, key: str, byte_range: ByteRequest) -> bytes:
        """As `HTTPFileSystem._cat_file` does it, but for looking at what the server says it has sent."""
        url = self._path(key)
        options = dict(self.fs.kwargs)
        # Not compressed: the range would be one of the compressed bytes.
        headers = {"Accept-Encoding": "identity", **options.pop("headers", {}), "Range": _range_header(byte_range)}
        session = await self.fs.set_session()
        async with session.get(self.fs.encode_url(url), headers=headers, **options) as response:
            if response.status == 416:  # the range begins at or after the end
                return b""
            response.raise_for_status()
            body: bytes = await response.read()
        return body if response.status == 206 else body[_slice(byte_range)]


def _below(folder: str, entry: str) -> str | None:
    """The URL that a link on the index page of `folder` stands for, or None if it leads elsewhere."""
    if "#" in entry or "?" in entry:  # an anchor, or a link that sorts the page
        return None
    name = posixpath.normpath(entry.removeprefix(f"{folder}/"))
    if not entry.startswith(f"{folder}/") or name.startswith(("..", "/")) or name == ".":
        return None
    return f"{folder}/{name}{'/' if entry.endswith('/') else ''}"


def _asks_for_nothing(byte_range: ByteRequest) -> bool:
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.end <= byte_range.start
    return isinstance(byte_range, SuffixByteRequest) and byte_range.suffix == 0


def _range_header(byte_range: ByteRequest) -> str:
    if isinstance(byte_range, RangeByteRequest):
        return f"bytes={byte_range.start}-{byte_range.end - 1}"
    if isinstance(byte_range, SuffixByteRequest):
        return f"bytes=-{byte_range.suffix}"
    return f"bytes={byte_range.offset}-"


def _slice(byte_range: ByteRequest) -> slice:
    """The part of a whole object that was asked for, for a server that ignores ``Range``."""
    if isinstance(byte_range, RangeByteRequest):
        return slice(byte_range.start, byte_range.end)
    if isinstance(byte_range, SuffixByteRequest):
        return slice(-byte_range.suffix, None)
    return slice(byte_range.offset, None)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error carries: aiohttp calls it `status`, gcsfs `code`."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return int(status) if isinstance(status, int) or (isinstance(status, str) and status.isdigit()) else None
