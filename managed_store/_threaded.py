"""A synchronous filesystem as an asynchronous one: its calls run in threads of its own, as many at a time as it bears.

fsspec's `AsyncFileSystemWrapper` does nearly that. What it lacks: it lets go of a connection when a caller is
cancelled, although the thread still uses it, so that two requests meet on one FTP connection; its threads are those of
the loop's default executor; and it passes on a suffix range, which many synchronous filesystems get wrong.
"""

from __future__ import annotations

import functools
import inspect
import io
from collections.abc import Callable
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from managed_store._failures import honest, honest_about
from managed_store._threads import Workers

__all__ = ["ThreadedFileSystem"]

# Filesystems that bear several requests at a time, by qualified name of their class, and how many. All others get one:
# ftp and sftp have one connection, archives one file position, and of what is not known nobody can say.
_REQUESTS_AT_A_TIME = {
    "fsspec.implementations.http.HTTPFileSystem": 8,
    "fsspec.implementations.local.LocalFileSystem": 8,
    "fsspec.implementations.memory.MemoryFileSystem": 8,
    "gcsfs.core.GCSFileSystem": 8,
    "s3fs.core.S3FileSystem": 8,
    "adlfs.spec.AzureBlobFileSystem": 8,
}


class ThreadedFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The asynchronous face of a synchronous filesystem.

    Parameters
    ----------
    sync_fs : fsspec.spec.AbstractFileSystem
        The filesystem whose methods become coroutines.
    read_file : callable, optional
        How a file, or a part of it, is read: ``read_file(path, start, end)``, by way of a cache, say. The default is
        `read_part`.
    limit : int, optional
        How many requests may be under way at a time. The default is what the filesystem is known to bear, else one.

    Attributes
    ----------
    sync_fs : fsspec.spec.AbstractFileSystem
        As given.
    read_file : callable
        As given.
    kwargs : dict
        The options that go with each request, of a filesystem that has such (HTTP).
    has_folders : bool
        Whether a file can only be written into a folder that is there.
    workers : Workers
        The threads.
    """

    cachable = False

    def __init__(
        self,
        sync_fs: AbstractFileSystem,
        read_file: Callable[[str, int | None, int | None], bytes] | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        super().__init__(asynchronous=True)
        self.sync_fs: Any = sync_fs
        self.protocol = sync_fs.protocol
        self.root_marker = sync_fs.root_marker
        self.kwargs: dict[str, Any] = getattr(sync_fs, "kwargs", {})
        known = _requests_at_a_time(sync_fs)
        self.workers = Workers((known or 1) if limit is None else limit)
        # A zarr store has no folders; of what is known here, only the local filesystem has, and makes them itself.
        self.has_folders = known is None
        self.read_file: Any = read_file or functools.partial(read_part, sync_fs)
        for name in dir(type(sync_fs)):
            method = getattr(type(sync_fs), name)
            if not name.startswith("_") and inspect.isfunction(method) and not inspect.isgeneratorfunction(method):
                self._adopt(name)
        for name in ("_strip_protocol", "_parent", "unstrip_protocol"):
            setattr(self, name, getattr(sync_fs, name))

    def _adopt(self, name: str) -> None:
        """Give the method `name` of the synchronous filesystem a twin that is awaited."""
        if name in ("open", "cat_file", "find", "pipe_file"):
            return

        @functools.wraps(getattr(type(self.sync_fs), name))
        async def twin(*args: Any, **kwargs: Any) -> Any:
            call = functools.partial(getattr(self.sync_fs, name), *args, **kwargs)
            if name in ("rm", "rm_file") and args and isinstance(args[0], str):
                if kwargs.get("recursive") and "ftp" in self.protocol:
                    call = functools.partial(remove_tree, self.sync_fs, args[0])
                return await self.workers.run(lambda: honest_about(args[0], call, info=self.sync_fs.info))
            return await self._run(call)

        setattr(self, f"_{name}", twin)

    async def _find(self, path: str, **kwargs: Any) -> Any:
        if type(self.sync_fs).find is AbstractFileSystem.find:
            kwargs.setdefault("on_error", "raise")  # else a folder that cannot be listed is an empty one
        return await self._run(functools.partial(self.sync_fs.find, path, **kwargs))

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        def read() -> bytes:
            data: bytes = honest_about(path, lambda: self.read_file(path, start, end), info=self.sync_fs.info)
            if not data and self.has_folders and self.sync_fs.isdir(path):  # some read a folder as an empty file
                raise IsADirectoryError(path)
            return data

        return await self.workers.run(read)

    async def _pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        def write() -> None:
            folder = self.sync_fs._parent(path)
            if self.has_folders and not self.sync_fs.isdir(folder):
                self.sync_fs.makedirs(folder, exist_ok=True)
            write_file(self.sync_fs, path, value, **kwargs)

        await self._run(write)

    async def _run(self, call: Callable[[], Any]) -> Any:
        return await self.workers.run(lambda: honest(call))


def read_part(filesystem: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read a part of a file by its positions, as a slice of its bytes.

    A position from the end is counted from what the opened file says of its own size: the filesystems' `cat_file`
    fails there (sftp), or answers with other bytes (ftp).
    """
    if start is None or start >= 0:
        data: bytes = filesystem.cat_file(path, start, end)
        return data
    with filesystem.open(path, "rb") as file:
        file.seek(0, io.SEEK_END)
        file.seek(max(0, file.tell() + start))
        tail: bytes = file.read()
    return tail


def write_file(filesystem: Any, path: str, value: bytes, **kwargs: Any) -> None:
    """Write a whole file; one whose upload fails is given up, and not uploaded once more when it is collected."""
    if type(filesystem).pipe_file is not AbstractFileSystem.pipe_file:
        filesystem.pipe_file(path, value, **kwargs)
        return
    file = filesystem.open(path, "wb")
    try:
        file.write(value)
        file.close()
    except BaseException:
        if isinstance(file, AbstractBufferedFile):
            file.closed = True
        raise


def remove_tree(filesystem: Any, path: str) -> None:
    """Remove a file, or a folder with all in it: ftp's `rm` takes each file for a folder that holds itself."""
    if not filesystem.isdir(path):
        filesystem.rm_file(path)
        return
    for entry in filesystem.ls(path, detail=True):
        if entry["type"] == "directory":
            remove_tree(filesystem, entry["name"].rstrip("/"))
        else:
            filesystem.rm_file(entry["name"])
    filesystem.rmdir(path)


def _requests_at_a_time(filesystem: AbstractFileSystem) -> int | None:
    for cls in type(filesystem).__mro__:
        limit = _REQUESTS_AT_A_TIME.get(f"{cls.__module__}.{cls.__qualname__}")
        if limit is not None:
            return limit
    return None
