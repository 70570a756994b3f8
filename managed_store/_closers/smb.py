"""smbclient keeps one connection for each server and process, with a thread: fsspec's SMB filesystems share it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING

from managed_store._closers._blocking import BlockingCloser

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["SmbCloser"]

# How many filesystems of managed stores use the connection to each server.
_in_use: Counter[tuple[str, int]] = Counter()
_lock = threading.Lock()


class SmbCloser(BlockingCloser):
    """Ends smbclient's connection to the server, with the last filesystem that uses it.

    Used by another managed store, or by an SMB filesystem in fsspec's instance cache, the connection stays: closing
    one store never disturbs anyone else. It is not seen whether a program uses smbclient itself.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._server: tuple[str, int] | None = (self.filesystem.host, self.filesystem.port or 445)
        with _lock:
            _in_use[self._server] += 1

    def let_go(self) -> None:
        server = self._server
        if server is None or not self._is_last(server):
            return
        import smbclient

        smbclient.delete_session(server[0], port=server[1])

    def force(self) -> None:
        with contextlib.suppress(Exception):  # it has been cut off by the server
            self.let_go()

    def _is_last(self, server: tuple[str, int]) -> bool:
        self._server = None
        with _lock:
            _in_use[server] -= 1
            used = _in_use[server] > 0
        others = type(self.filesystem)._cache.values()
        return not used and all((other.host, other.port or 445) != server for other in others)
