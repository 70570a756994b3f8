"""How each kind of filesystem lets go, and the registry in which a filesystem finds its closer.

Closers are registered by the qualified name of a filesystem class, so that no backend is imported for them, and
looked up along the class hierarchy, nearest first.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from managed_store._closers._closer import Closer, retire_finalizers

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["Closer", "closer_for", "retire_finalizers"]

_logger = logging.getLogger("managed_store")

# The qualified name of a filesystem class → the module and name of its closer, imported when first needed.
_REGISTRY: dict[str, tuple[str, str]] = {
    "fsspec.implementations.asyn_wrapper.AsyncFileSystemWrapper": ("wrapper", "WrapperCloser"),
    "fsspec.implementations.http.HTTPFileSystem": ("http", "HttpCloser"),
    "fsspec.implementations.local.LocalFileSystem": ("_closer", "Closer"),
    "fsspec.implementations.memory.MemoryFileSystem": ("_closer", "Closer"),
    "gcsfs.core.GCSFileSystem": ("gcs", "GcsCloser"),
    "gcsfs.extended_gcsfs.ExtendedGcsFileSystem": ("gcs", "ExtendedGcsCloser"),
    "s3fs.core.S3FileSystem": ("s3", "S3Closer"),
}


def closer_for(filesystem: AbstractFileSystem) -> Closer:
    """Make the closer of `filesystem`.

    One that no closer is registered for gets the closer that closes nothing, and a DEBUG message says so.
    """
    for cls in type(filesystem).__mro__:
        entry = _REGISTRY.get(f"{cls.__module__}.{cls.__qualname__}")
        if entry is not None:
            module, name = entry
            make: Callable[[AbstractFileSystem], Closer] = getattr(
                importlib.import_module(f"{__name__}.{module}"), name
            )
            return make(filesystem)
    _logger.debug("No closer is known for %s: nothing of it is closed.", type(filesystem).__qualname__)
    return Closer(filesystem)
