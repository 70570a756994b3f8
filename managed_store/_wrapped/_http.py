"""Stores over HTTP, whose listings are the links of web pages, and whose servers may ignore ``Range``."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest

from managed_store._wrapped._ranges import (
    BYTE_REQUESTS,
    GONE,
    as_slice,
    asks_for_nothing,
    range_header,
    status_of,
)
from managed_store._wrapped._store import WrappedFsspecStore

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["HttpStore", "IndexedStore"]


class IndexedStore(WrappedFsspecStore):
    """The same over HTTP, where listings are the links of web pages; read by way of a local cache, say."""

    supports_deletes = False

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        # With the options of the filesystem (headers, ssl): fsspec leaves them out when it writes.
        options = {**self.fs.kwargs, "headers": dict(self.fs.kwargs.get("headers") or {})}
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
            if status_of(error) in GONE:  # fsspec knows 404 alone
                raise FileNotFoundError(folder) from error
            raise
        return list(dict.fromkeys(filter(None, (_below(folder, entry) for entry in entries))))

    async def _info(self, key: str) -> dict[str, Any]:
        try:
            return await super()._info(key)
        except FileNotFoundError as error:
            # fsspec says so of every failure, with the real one as the cause.
            if error.__cause__ is None or _is_missing(error.__cause__):
                raise
            raise error.__cause__ from None


class HttpStore(IndexedStore):
    """The same over fsspec's HTTP filesystem itself, reading as its `_cat_file` does, by the session that it opens.

    But it looks at what the server says it has sent. And it spares a coroutine, so that a managed store, which has one
    more on top, has as many as zarr's: a read is resumed through all of them at each turn of its loop.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if byte_range is not None and (not isinstance(byte_range, BYTE_REQUESTS) or asks_for_nothing(byte_range)):
            return await super().get(key, prototype, byte_range)
        url, options = self._path(key), self.fs.kwargs
        if byte_range is not None:
            # Not compressed: the range would be one of the compressed bytes.
            given = options.get("headers") or {}
            headers = {"Accept-Encoding": "identity", **given, "Range": range_header(byte_range)}
            options = {**options, "headers": headers}
        session = await self.fs.set_session()
        try:
            async with session.get(self.fs.encode_url(url), **options) as response:
                value = _value(url, byte_range, response.status, await response.read())
                response.raise_for_status()
        except self.allowed_exceptions:
            return None
        except Exception as error:
            status = status_of(error)
            if status == 416 and byte_range is not None:  # the range begins at or after the end
                value = b""
            elif status in GONE:  # by a session that raises of itself
                return None
            else:
                raise
        return prototype.buffer.from_bytes(value)


def _value(url: str, byte_range: ByteRequest | None, status: int, body: bytes) -> bytes:
    """What was asked for, of what was sent."""
    if status in GONE:
        raise FileNotFoundError(url)
    return body if byte_range is None or status == 206 else body[as_slice(byte_range)]


def _is_missing(cause: BaseException) -> bool:
    return isinstance(cause, FileNotFoundError) or status_of(cause) in GONE


def _below(folder: str, entry: str) -> str | None:
    """The URL that a link on the index page of `folder` stands for, or None if it leads elsewhere."""
    if "#" in entry or "?" in entry:  # an anchor, or a link that sorts the page
        return None
    name = posixpath.normpath(entry.removeprefix(f"{folder}/"))
    if not entry.startswith(f"{folder}/") or name.startswith(("..", "/")) or name == ".":
        return None
    return f"{folder}/{name}{'/' if entry.endswith('/') else ''}"
