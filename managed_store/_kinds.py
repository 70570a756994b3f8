"""Which of fsspec's own kinds a filesystem is of, found out without importing them: most stores need none."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ARCHIVE", "ASYNC_WRAPPER", "CACHE", "FOLDER", "REFERENCES", "SIMPLE_CACHE", "WHOLE_FILE_CACHE", "kind"]

# Module and name of each.
ARCHIVE = ("fsspec.archive", "AbstractArchiveFileSystem")
ASYNC_WRAPPER = ("fsspec.implementations.asyn_wrapper", "AsyncFileSystemWrapper")
CACHE = ("fsspec.implementations.cached", "CachingFileSystem")
FOLDER = ("fsspec.implementations.dirfs", "DirFileSystem")
REFERENCES = ("fsspec.implementations.reference", "ReferenceFileSystem")
SIMPLE_CACHE = ("fsspec.implementations.cached", "SimpleCacheFileSystem")
WHOLE_FILE_CACHE = ("fsspec.implementations.cached", "WholeFileCacheFileSystem")


def kind(which: tuple[str, str]) -> Any:
    """A class, for `isinstance` and `issubclass`; while it is not imported there are none of its kind, nor below it.

    Parameters
    ----------
    which : tuple of str
        Module and name: one of the above.

    Returns
    -------
    type or tuple of type
        The class; ``()`` while its module is not imported.
    """
    module, name = which
    return getattr(sys.modules.get(module), name, ())
