"""Reading through fsspec's local caches: filecache, simplecache and blockcache.

The one place that touches their private names. What is mended here: a download that breaks off, or that another
thread or process has not finished, is found in the cache and taken for the whole file; and the caches ask with
`exists` first, which takes a broken connection for a missing file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from typing import Any

from fsspec.compression import compr
from fsspec.utils import infer_compression

from managed_store._kinds import SIMPLE_CACHE, WHOLE_FILE_CACHE, kind
from managed_store._threaded import read_part

__all__ = ["ReadThrough", "fetch", "forget"]


class ReadThrough:
    """Reads files by way of their copies in a cache; told of a write, it takes the next copy from the source.

    Parameters
    ----------
    cache : fsspec.implementations.cached.CachingFileSystem
        The cache.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._stale: set[str] = set()

    def __call__(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Read a part of a file."""
        cache = self._cache
        path = cache._strip_protocol(path)
        if path in self._stale:
            self._stale.discard(path)  # before the copy goes: a write that comes now marks it again
            forget(cache, path)
        if not isinstance(cache, kind(WHOLE_FILE_CACHE)):
            return _read_blocks(cache, path, start, end)
        with open(fetch(cache, path), "rb") as file:
            first, last, _ = slice(start, end).indices(file.seek(0, os.SEEK_END))
            file.seek(first)
            return file.read(max(0, last - first))

    def mark_stale(self, path: str) -> None:
        """Note that a file was written or deleted. From any thread."""
        self._stale.add(self._cache._strip_protocol(path))


def _read_blocks(cache: Any, path: str, start: int | None, end: int | None) -> bytes:
    try:
        return read_part(cache, path, start, end)
    except (AttributeError, TypeError, ValueError):  # a file without a size, or an empty one, has no blocks
        return read_part(cache.fs, path, start, end)


def forget(cache: Any, path: str) -> None:
    """Remove the copy of a file from the cache, should there be one."""
    cache._metadata.pop_file(path)  # fsspec's `pop_from_cache` does not know the copies of simplecache
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(cache.storage[-1], cache._mapper(path)))


def fetch(cache: Any, path: str) -> str:
    """Return the local copy of a file; download it if there is none, whole or not at all."""
    path = cache._strip_protocol(path)
    found = cache._check_file(path)
    if not found:
        _download(cache, path)
        found = cache._check_file(path)
    if not found:  # another process has emptied the cache meanwhile
        raise OSError(f"the local copy of {path!r} disappeared from the cache")
    local: str = found if isinstance(found, str) else found[1]
    return local


def _download(cache: Any, path: str) -> None:
    cache._mkcache()
    final = os.path.join(cache.storage[-1], cache._mapper(path))
    partial = f"{final}.{uuid.uuid4().hex}.part"
    try:
        name = infer_compression(path) if cache.compression == "infer" else cache.compression
        if name is not None or not cache.fs.async_impl:  # ftp's `get_file` leaves the local file open when it fails
            with cache.fs.open(path, "rb") as source, open(partial, "wb") as sink:
                shutil.copyfileobj(source if name is None else compr[name](source, mode="rb"), sink)
        else:
            cache.fs.get_file(path, partial)
        os.replace(partial, final)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise
    cache._cache_size = None
    if not isinstance(cache, kind(SIMPLE_CACHE)):
        cache._make_local_details(path)
        cache.save_cache()
