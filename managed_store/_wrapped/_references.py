"""A store over references to parts of other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsspec.core import split_protocol
from fsspec.implementations.reference import LazyReferenceMapper, ReferenceNotReachable
from zarr.abc.store import ByteRequest

from managed_store._redaction import redacted
from managed_store._threads import in_helper_thread
from managed_store._wrapped._ranges import BYTE_REQUESTS, asks_for_nothing
from managed_store._wrapped._store import WrappedFsspecStore

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["ReferencesStore"]


class ReferencesStore(WrappedFsspecStore):
    """The same over references, whose ranges can lead out of the part of a file that they stand for.

    A table of references in parquet files reads these when a key is looked up, by a call that blocks. The key is
    looked up in a thread first, and the table remembers. Nothing can be written: what fsspec writes into a table is
    in memory, of one filesystem, and gone with it.
    """

    supports_deletes = False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if not isinstance(byte_range, BYTE_REQUESTS) or asks_for_nothing(byte_range):
            await self._look_up(key)
            return await super().get(key, prototype, byte_range)
        try:
            return await self._get_within(key, prototype, byte_range)
        except self.allowed_exceptions:
            return None

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        raise NotImplementedError(f"key {key!r} cannot be written: references are a view of other files.")

    async def delete(self, key: str) -> None:
        # zarr deletes chunks that hold nothing but the fill value, whether they are there or not.
        if await self.exists(key):
            raise NotImplementedError(f"key {key!r} cannot be deleted: references are a view of other files.")

    async def delete_dir(self, prefix: str) -> None:
        raise NotImplementedError(f"folder {prefix!r} cannot be deleted: references are a view of other files.")

    async def clear(self) -> None:
        raise NotImplementedError("the store cannot be cleared: references are a view of other files.")

    async def sizes(self, prefix: str) -> dict[str, int | None]:
        await self._look_up(prefix)
        return await super().sizes(prefix)

    async def _info(self, key: str) -> dict[str, Any]:
        path = self._path(key)
        part = await self._look_up(key)
        if isinstance(part, list | tuple) and len(part) == 1:  # a whole file: its own filesystem knows the size
            url = self.fs.target if part[0] is None else part[0]
            protocol, _ = split_protocol(url)
            try:
                size = await self.fs.fss[protocol]._size(url)
            except self.allowed_exceptions as error:  # the key is there, and fsspec says so of any failure over HTTP
                raise ReferenceNotReachable(key, redacted(url)) from error
            return {"name": path, "type": "file", "size": size}
        return await super()._info(key)

    async def _ls(self, folder: str) -> list[str]:
        await self._look_up(self._key(folder))
        return await super()._ls(folder)

    async def _look_up(self, key: str) -> Any:
        table, path = self.fs.references, self._path(key)
        if isinstance(table, LazyReferenceMapper):
            return await in_helper_thread(lambda: table.get(path))
        return table.get(path)
