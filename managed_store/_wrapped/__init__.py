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

from collections.abc import Iterable
from typing import TYPE_CHECKING

from managed_store._kinds import REFERENCES, kind
from managed_store._threaded import ThreadedFileSystem
from managed_store._wrapped._http import HttpStore, IndexedStore
from managed_store._wrapped._store import SizedStore, WrappedFsspecStore

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem

__all__ = ["WrappedFsspecStore", "can_delete", "wrap"]

_HTTP_PROTOCOLS = frozenset({"http", "https"})

# Layers that hand a write or a delete to the filesystem that they are laid over, and such as take none.
_PASS_WRITES_ON = frozenset(
    {"asyncwrapper", "async_wrapper", "blockcache", "cached", "dir", "filecache", "simplecache"}
)
_TAKE_NO_DELETES = frozenset({"http", "https", "libarchive", "reference", "tar", "zip"})

# Asynchronous filesystems whose server takes a suffix range, and which pass it on. Of others nobody can say: adlfs
# raises an error, and one that counts wrong would give other bytes.
_SERVES_SUFFIXES = frozenset({"gs", "gcs", "s3", "s3a"})


def can_delete(protocols: Iterable[str]) -> bool:
    """Whether the filesystem of a chain, given its protocols, can delete: over HTTP, say, fsspec has no way to."""
    written = next((each for each in protocols if each not in _PASS_WRITES_ON), "")
    return written not in _TAKE_NO_DELETES


def wrap(filesystem: AsyncFileSystem, path: str, allowed_exceptions: tuple[type[Exception], ...]) -> WrappedFsspecStore:
    """Wrap a filesystem of one event loop in the store that fits it. Writable: the handles above guard writing."""
    protocol = filesystem.protocol
    protocols = {protocol} if isinstance(protocol, str) else set(protocol)
    cls = WrappedFsspecStore
    if isinstance(filesystem, kind(REFERENCES)):
        from managed_store._wrapped._references import ReferencesStore  # which imports these

        cls = ReferencesStore
    elif protocols & _HTTP_PROTOCOLS:
        # A subclass that reads in its own way is asked to. One that reads in threads has no session.
        reads_by_fsspec = type(filesystem)._cat_file.__module__ == "fsspec.implementations.http"
        cls = HttpStore if reads_by_fsspec else IndexedStore
    elif not (isinstance(filesystem, ThreadedFileSystem) or protocols & _SERVES_SUFFIXES):
        cls = SizedStore
    return cls(filesystem, path=path.rstrip("/") or path, allowed_exceptions=allowed_exceptions)
