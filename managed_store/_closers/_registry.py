"""Which closer a filesystem gets: registered ones, this package's own, those of installed packages, and a default."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import EntryPoint, distributions
from typing import TYPE_CHECKING, Any, TypeAlias

from managed_store._closers._closer import Closer
from managed_store.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["building", "closer_for", "register_closer"]

CloserFactory: TypeAlias = "Callable[[AbstractFileSystem], Closer]"

ENTRY_POINT_GROUP = "managed_store.closers"

# The qualified name of a filesystem class → the module and name of its closer, imported when first needed.
_OWN: dict[str, tuple[str, str]] = {
    "adlfs.spec.AzureBlobFileSystem": ("azure", "AzureCloser"),
    "fsspec.archive.AbstractArchiveFileSystem": ("archive", "ArchiveCloser"),
    "fsspec.implementations.cached.CachingFileSystem": ("_closer", "Closer"),
    "fsspec.implementations.dbfs.DatabricksFileSystem": ("requests", "RequestsCloser"),
    "fsspec.implementations.ftp.FTPFileSystem": ("ftp", "FtpCloser"),
    "fsspec.implementations.github.GithubFileSystem": ("_closer", "Closer"),
    "fsspec.implementations.http.HTTPFileSystem": ("http", "HttpCloser"),
    "fsspec.implementations.jupyter.JupyterFileSystem": ("requests", "RequestsCloser"),
    "fsspec.implementations.local.LocalFileSystem": ("_closer", "Closer"),
    "fsspec.implementations.memory.MemoryFileSystem": ("_closer", "Closer"),
    "fsspec.implementations.reference.ReferenceFileSystem": ("_closer", "Closer"),
    "fsspec.implementations.sftp.SFTPFileSystem": ("sftp", "SftpCloser"),
    "fsspec.implementations.smb.SMBFileSystem": ("smb", "SmbCloser"),
    "fsspec.implementations.webhdfs.WebHDFS": ("requests", "RequestsCloser"),
    "gcsfs.core.GCSFileSystem": ("gcs", "GcsCloser"),
    "gcsfs.extended_gcsfs.ExtendedGcsFileSystem": ("gcs", "ExtendedGcsCloser"),
    "managed_store._threaded.ThreadedFileSystem": ("threaded", "ThreadedCloser"),
    "s3fs.core.S3FileSystem": ("s3", "S3Closer"),
    "webdav4.fsspec.WebdavFileSystem": ("webdav", "WebdavCloser"),
}

# What was registered by hand: a class, its qualified name, or a protocol → the closer.
_registered: dict[type | str, CloserFactory] = {}


def register_closer(protocol_or_class: str | type, closer: CloserFactory) -> None:
    """Register how filesystems of a kind that this package does not know let go.

    A closer that is registered for a class serves its subclasses too, unless one of them has its own. It goes before
    the closers of this package, and these before the entry points of installed packages: nothing that is merely
    installed changes how a filesystem closes that this package knows.

    Parameters
    ----------
    protocol_or_class : str or type
        A protocol such as ``"myfs"``, a subclass of ``fsspec.spec.AbstractFileSystem``, or the qualified name of one,
        ``"package.module.Class"``, which is not imported.
    closer : callable
        Makes a `Closer` for a filesystem: usually a subclass of `Closer`.

    Raises
    ------
    ArgumentTypeError
        `protocol_or_class` is neither a string nor a filesystem class, or `closer` cannot be called, or is a class that
        is no `Closer`.
    ArgumentError
        `protocol_or_class` is an empty string.

    Notes
    -----
    *Threads.* May be called from any thread. Filesystems that are built afterwards get the closer.

    *Entry points.* A package can register its closers without being imported: in the group
    ``managed_store.closers``, an entry point whose name is the protocol or the qualified class name.

    Examples
    --------
    >>> from managed_store import Closer, register_closer
    >>> class ArchiveServiceCloser(Closer):
    ...     async def close(self):
    ...         if self.client is not None:
    ...             await self.client.aclose()
    ...
    ...     def still_open(self):
    ...         return [] if self.client is None or self.client.is_closed else ["client of the archive service"]
    ...
    ...     @property
    ...     def client(self):
    ...         return getattr(self.filesystem, "client", None)
    >>> register_closer("archive-service", ArchiveServiceCloser)
    """
    from fsspec.spec import AbstractFileSystem

    if isinstance(protocol_or_class, type):
        if not issubclass(protocol_or_class, AbstractFileSystem):
            raise ArgumentTypeError(
                f"protocol_or_class must be a protocol or a subclass of fsspec.spec.AbstractFileSystem; "
                f"got the class {protocol_or_class.__qualname__}."
            )
    elif not isinstance(protocol_or_class, str):
        raise ArgumentTypeError(
            f"protocol_or_class must be a protocol, such as 'myfs', or a filesystem class; "
            f"got {type(protocol_or_class).__name__}."
        )
    elif not protocol_or_class.strip():
        raise ArgumentError("protocol_or_class must be a protocol, such as 'myfs'; got an empty string.")
    if not callable(closer) or (isinstance(closer, type) and not issubclass(closer, Closer)):
        raise ArgumentTypeError(
            f"closer must be a subclass of managed_store.Closer, or a function that makes a closer for a filesystem; "
            f"got {f'the class {closer.__qualname__}' if isinstance(closer, type) else type(closer).__name__}."
        )
    _registered[protocol_or_class] = closer


def closer_for(filesystem: AbstractFileSystem) -> Closer:
    """Make the closer of `filesystem`; what no closer is registered for gets one that looks for what it can close."""
    return _factory_for(type(filesystem))(filesystem)


def building(cls: type, options: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Return what the closers of this class want held while a filesystem of it is built with these options."""
    factory = _factory_for(cls)
    closer = factory if isinstance(factory, type) and issubclass(factory, Closer) else Closer
    return closer.building(options)


def _factory_for(cls: type) -> CloserFactory:
    for each in cls.__mro__:
        for name in _names_of(each):
            if name in _registered:
                return _registered[name]
        for name in _names_of(each):
            if isinstance(name, str) and name in _OWN:
                # A class of gcsfs that has no protocol of its own goes by the one that it inherits.
                inherited = (_registered[other] for other in _protocols_of(cls) if other in _registered)
                return next(inherited, None) or _own(*_OWN[name])
        for name in _names_of(each):  # last: to look through all that is installed takes longer than to close
            if isinstance(name, str) and name in _installed():
                factory: CloserFactory = _installed()[name].load()
                return factory
    return _own("unknown", "UnknownCloser")


def _names_of(cls: type) -> Iterator[type | str]:
    """What a closer for exactly this class can be registered by, the most particular first."""
    yield cls
    yield f"{cls.__module__}.{cls.__qualname__}"
    if "protocol" in vars(cls):
        yield from _protocols_of(cls)


def _protocols_of(cls: type) -> tuple[str, ...]:
    protocol: Any = inspect.getattr_static(cls, "protocol", ())
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _own(module: str, name: str) -> CloserFactory:
    closer: CloserFactory = getattr(importlib.import_module(f"managed_store._closers.{module}"), name)
    return closer


@functools.cache
def _installed() -> dict[str, EntryPoint]:
    """The closers of installed packages."""
    found: dict[str, EntryPoint] = {}
    for package in distributions():  # half as long as `entry_points`, which reads those of every package
        if ENTRY_POINT_GROUP in (package.read_text("entry_points.txt") or ""):
            for entry in package.entry_points.select(group=ENTRY_POINT_GROUP):
                found.setdefault(entry.name, entry)  # a package that is found twice is the first of them
    return found
