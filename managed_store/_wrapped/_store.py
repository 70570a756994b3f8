"""zarr's FsspecStore, answering as any correct store would."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore

from managed_store._abandoned import leaving_no_calls
from managed_store._awaiting import all_of
from managed_store._wrapped._ranges import BYTE_REQUESTS, as_slice, asks_for_nothing, status_of

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["SizedStore", "WrappedFsspecStore"]


class WrappedFsspecStore(FsspecStore):
    """zarr's store over one filesystem, answering every byte request and listing as any correct store would."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._root = self._inside(self.path)

    # No coroutine of its own where zarr's will do: that would be resumed with it at each turn of the loop.
    def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Coroutine[Any, Any, Buffer | None]:
        if isinstance(byte_range, BYTE_REQUESTS):
            return self._get_part(key, prototype, byte_range)
        return super().get(key, prototype, byte_range)  # all of it, or what zarr refuses

    async def _get_part(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest) -> Buffer | None:
        if asks_for_nothing(byte_range):
            return prototype.buffer.from_bytes(b"") if await self.exists(key) else None
        try:
            return await super().get(key, prototype, byte_range)
        except Exception as error:
            if status_of(error) == 416:  # the range begins at or after the end
                return prototype.buffer.from_bytes(b"")
            within = await self._within(key, byte_range)
            if within is None:
                raise
        return await self._get_range(key, prototype, within)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        # One by one, because fsspec's `_cat_ranges` has every fault that `get` mends.
        return await all_of(self.get(key, prototype, each) for key, each in key_ranges)

    async def exists(self, key: str) -> bool:
        # Not `fs._exists`: older fsspec answers False there to every error.
        try:
            info = await self._info(key)
        except self.allowed_exceptions:
            return False
        return info.get("type") != "directory"

    async def getsize(self, key: str) -> int:
        try:
            info = await self._info(key)
        except self.allowed_exceptions as error:
            raise FileNotFoundError(key) from error
        if info.get("type") == "directory":
            raise FileNotFoundError(key)
        size = info.get("size")
        return int(size) if size is not None else await super().getsize(key)

    async def clear(self) -> None:
        # The folders and objects below the root, not the root: that may be a bucket.
        children = [self._path(name) for name in await self.children("")]
        for child in children:
            await self._remove(child)

    async def delete_dir(self, prefix: str) -> None:
        if prefix.strip("/"):
            await self._remove(self._path(prefix))
        else:
            await self.clear()

    async def _remove(self, folder: str) -> None:
        try:
            await leaving_no_calls(self.fs, self.fs._rm(folder, recursive=True))
        except self.allowed_exceptions:
            pass

    async def keys(self, prefix: str) -> list[str]:
        """All keys below the folder `prefix`, relative to the root of the store."""
        return [key for key in await self.sizes(prefix) if key.startswith(prefix)]

    async def sizes(self, prefix: str) -> dict[str, int | None]:
        """All keys below the folder `prefix` with their sizes in bytes, None where the listing does not tell."""
        folder = self._path(prefix)
        try:
            await self._check_folder(folder)
            found = await self.fs._find(folder, detail=True, withdirs=False)
        except self.allowed_exceptions:
            return {}
        if not isinstance(found, dict):  # adlfs has nothing to tell in detail
            return {}
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
        """Read a range by positions that lie in the object."""
        start, end, _ = as_slice(byte_range).indices(await self.getsize(key))
        return await self._get_range(key, prototype, RangeByteRequest(start, end))

    async def _get_range(self, key: str, prototype: BufferPrototype, part: RangeByteRequest) -> Buffer | None:
        if part.start >= part.end:
            return prototype.buffer.from_bytes(b"")
        return await super().get(key, prototype, part)

    async def _within(self, key: str, byte_range: ByteRequest) -> RangeByteRequest | None:
        """The part of a range that lies in the object, for a filesystem that fails with the rest; None if all does."""
        try:
            size = await self.getsize(key)
        except Exception:  # the failure was not about the range
            return None
        start, end, _ = as_slice(byte_range).indices(size)
        reaches_out = isinstance(byte_range, SuffixByteRequest) or max(*_positions(byte_range)) > size
        return RangeByteRequest(start, end) if reaches_out else None

    def _path(self, key: str) -> str:
        key = key.strip("/")
        return f"{self._root}{key}" if key else self.path

    def _inside(self, folder: str) -> str:
        """What the paths of all that is in a folder begin with."""
        return f"{folder.rstrip('/')}/" if folder else str(self.fs.root_marker)

    def _key(self, path: str) -> str:
        return path.removeprefix(self.path).lstrip("/")

    async def _info(self, key: str) -> dict[str, Any]:
        info: dict[str, Any] = await self.fs._info(self._path(key))
        return info

    async def _check_folder(self, folder: str) -> None:
        """Where there are folders, refuse to list a file: some filesystems (ftp, webhdfs) find that file in itself."""
        if folder.strip("/") and getattr(self.fs, "has_folders", False):
            info = await self.fs._info(folder)
            if info["type"] != "directory":
                raise NotADirectoryError(folder)

    async def _ls(self, folder: str) -> list[str]:
        await self._check_folder(folder)
        # In detail, because without it some filesystems (ftp) leave out the folder.
        return [entry["name"] for entry in await self.fs._ls(folder, detail=True)]


def _positions(byte_range: ByteRequest) -> tuple[int, int]:
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    return (byte_range.offset, 0) if isinstance(byte_range, OffsetByteRequest) else (0, 0)


class SizedStore(WrappedFsspecStore):
    """The same over a filesystem that is not known to count from the end: the store asks for the size, and counts."""

    async def _get_part(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest) -> Buffer | None:
        if not isinstance(byte_range, SuffixByteRequest) or asks_for_nothing(byte_range):
            return await super()._get_part(key, prototype, byte_range)
        try:
            return await self._get_within(key, prototype, byte_range)
        except self.allowed_exceptions:
            return None
