"""smbclient keeps one connection for each server and process, with a thread: fsspec's SMB filesystems share it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from managed_store._closers._blocking import BlockingCloser
from managed_store._threads import in_helper_thread

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["SmbCloser"]

# How many filesystems of managed stores use the connection to each server, and a lock for that, held for a moment, in
# which the garbage collector may come here again on the same thread.
_in_use: Counter[tuple[str, int]] = Counter()
_counting = threading.RLock()

# A lock for each server, held while a connection is made or ended: of two that are made at a time smbclient loses one.
_connecting: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)


class SmbCloser(BlockingCloser):
    """Ends smbclient's connection to the server, with the last filesystem that uses it.

    Used by another managed store, or by an SMB filesystem in fsspec's instance cache, the connection stays: closing
    one store never disturbs anyone else. It is not seen whether a program uses smbclient itself.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        # Either is missing while the constructor fails.
        self._server = _server_of(vars(filesystem))
        self._uses_it = True
        self._connection: Any = None
        self._cut_off = False
        with _counting:
            _in_use[self._server] += 1

    @classmethod
    def building(cls, options: Mapping[str, Any]) -> AbstractContextManager[Any]:
        return _connecting[_server_of(options)]

    async def open(self) -> None:
        await in_helper_thread(self._connect_again)

    def _connect_again(self) -> None:
        with _connecting[self._server]:
            if self._key not in _pool():  # ended by the closing of another, after this one was built
                self.filesystem._connect()

    def let_go(self) -> None:
        with _connecting[self._server]:
            self._take_over()
            if self._connection is not None and not self._cut_off:
                self._connection.disconnect(close=True)

    def force(self) -> None:
        self._take_over()
        if self._connection is not None and not self._cut_off:
            self._cut_off = True
            self._give_up_files()
            with contextlib.suppress(OSError, AttributeError):  # not connected any more
                self._connection.transport._sock.shutdown(socket.SHUT_RDWR)
            # Waits for smbprotocol's own thread, which ends now.
            threading.Thread(target=self._connection.disconnect, args=(False,), daemon=True).start()

    def still_open(self) -> list[str]:
        connection = _pool().get(self._key) if self._uses_it else self._connection
        return ["SMB connection"] if connection is not None and connection.transport.connected else []

    def _take_over(self) -> None:
        """Take the connection out of smbclient's pool, once, if nobody else uses it."""
        if not self._uses_it:
            return
        self._uses_it = False
        with _counting:
            _in_use[self._server] -= 1
            others = type(self.filesystem)._cache.values()
            if _in_use[self._server] == 0 and all(_server_of(vars(other)) != self._server for other in others):
                self._connection = _pool().pop(self._key, None)

    def _give_up_files(self) -> None:
        """Let the files that are open count as closed: they can never be closed at the server, and would warn of it."""
        for session in tuple(self._connection.session_table.values()):
            for file in tuple(session.open_table.values()):
                file._connected = False

    @property
    def _key(self) -> str:
        host, port = self._server
        return f"{host}:{port}"


# Connections of the parent process, held for ever in a child: their locks and their threads are the parent's.
_inherited: list[Any] = []


def _forget_after_fork() -> None:
    """The child drops what it inherited: a request there would go out on the parent's connection."""
    global _counting
    for host, port in _connecting:
        connection = _pool().pop(f"{host}:{port}", None)
        if connection is not None:
            _inherited.append(connection)
            if connection.transport._sock is not None:
                connection.transport._sock.close()  # its copy alone
    _connecting.clear()
    _in_use.clear()
    _counting = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _server_of(options: Mapping[str, Any]) -> tuple[str, int]:
    """The server that a filesystem with these options, or attributes, speaks to."""
    return str(options.get("host", "")).lower(), options.get("port") or 445


def _pool() -> dict[str, Any]:
    """The connections of smbclient, which cannot be reached by public names."""
    from smbclient import _pool as pool

    connections: dict[str, Any] = pool._SMB_CONNECTIONS
    return connections
