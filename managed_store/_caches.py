"""Reading through fsspec's local caches: filecache, simplecache and blockcache.

The one place that touches their private names. What is mended here: a download that breaks off, or that another
thread or process has not finished, is found in the cache and taken for the whole file; and the caches ask with
`exists` first, which takes a broken connection for a missing file.
"""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any

from fsspec.compression import compr
from fsspec.implementations.cached import SimpleCacheFileSystem, WholeFileCacheFileSystem
from fsspec.utils import infer_compression

from managed_store._threaded import read_part

__all__ = ["fetch", "read_through"]


def read_through(cache: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read a part of a file by way of its copy in the cache."""
    if isinstance(cache, WholeFileCacheFileSystem):
        with open(fetch(cache, path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            first, last, _ = slice(start, end).indices(size)
            file.seek(first)
            return file.read(max(0, last - first))
    return read_part(cache, path, start, end)


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
        if cache.compression:
            name = infer_compression(path) if cache.compression == "infer" else cache.compression
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
    if not isinstance(cache, SimpleCacheFileSystem):
        cache._make_local_details(path)
        cache.save_cache()
