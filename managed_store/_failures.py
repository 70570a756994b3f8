"""Telling a missing file from a failure: synchronous filesystems report each as the other.

Seen: fsspec's HTTP filesystem says "file not found" of every failure, with the real one as the cause, and its FTP
filesystem of every answer that is no transfer; smb and webdav have errors of their own for a missing file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["honest", "honest_about"]

T = TypeVar("T")


def honest(call: Callable[[], T]) -> T:
    """Make a call. A missing file raises FileNotFoundError, and nothing else does."""
    try:
        return call()
    except FileNotFoundError as error:
        if error.__cause__ is None or not _is_failure(error.__cause__):
            raise
        raise error.__cause__ from None
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(*error.args) from error
        raise
    except ValueError as error:
        if isinstance(error.__cause__ or error.__context__, OSError):  # smbprotocol cannot connect
            raise ConnectionError(str(error)) from error
        raise


def honest_about(path: str, call: Callable[[], T], *, info: Callable[[str], Any]) -> T:
    """Make a call that reads or writes a file; where its failure is of no known kind, look whether the file is there.

    Parameters
    ----------
    path : str
        The file.
    call : callable
        The call.
    info : callable
        The filesystem's `info`: raises FileNotFoundError if there is no such file.
    """
    try:
        return honest(call)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ConnectionError, TimeoutError, EOFError):
        raise
    except Exception as error:
        kind = _what_is_there(path, info)
        if kind is None:
            raise
        raise kind(path) from error  # not by a variable: an error must not refer to itself by its traceback


def _what_is_there(path: str, info: Callable[[str], Any]) -> type[OSError] | None:
    """The error for a path that leads to nothing or to a folder, else None."""
    try:
        found = honest(lambda: info(path))
    except FileNotFoundError:
        return FileNotFoundError
    except Exception:  # the error that led here says more
        return None
    return IsADirectoryError if found.get("type") == "directory" else None


def _is_failure(cause: BaseException) -> bool:
    """Whether the cause of a FileNotFoundError is something else than a look-up that found nothing."""
    if getattr(cause, "status", None) in (404, 410):
        return False
    if isinstance(cause, OSError):
        return cause.errno != errno.ENOENT
    if isinstance(cause, EOFError | RuntimeError):
        return True
    packages = {each.__module__.partition(".")[0] for each in type(cause).__mro__}
    return not packages.isdisjoint({"aiohttp", "ftplib"})
