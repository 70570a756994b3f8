"""fsspec's SFTP filesystem holds paramiko's SSH client and the SFTP channel that it opened: a socket and a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from managed_store._closers._blocking import BlockingCloser

__all__ = ["SftpCloser"]

# Seconds for paramiko's thread to end after its connection has; then `still_open` names it.
_TO_END = 1.0


class SftpCloser(BlockingCloser):
    """Closes the channel and the client of ``fsspec.implementations.sftp.SFTPFileSystem``."""

    _known_transport: Any = None

    def let_go(self) -> None:
        transport = self._transport()
        for name in ("ftp", "client"):
            part = getattr(self.filesystem, name, None)  # missing while the constructor fails
            if part is not None:
                with contextlib.suppress(EOFError):  # cut off just now: paramiko has not noticed, and says goodbye
                    part.close()
        if transport is not None:
            transport.join(_TO_END)

    def sockets(self) -> Iterable[Any]:
        transport = self._transport()
        if transport is not None and transport.sock.fileno() != -1:
            yield transport.sock

    def close_socket(self, sock: Any) -> None:
        self._known_transport.packetizer.close()  # which tells its thread, that would log an error of the socket alone

    def still_open(self) -> list[str]:
        transport = self._transport()
        ended = transport is None or not (transport.is_alive() or any(self.sockets()))
        return [] if ended else ["SSH connection"]

    def _transport(self) -> Any:
        client = getattr(self.filesystem, "client", None)
        transport = None if client is None else client.get_transport()
        self._known_transport = transport or self._known_transport  # the client forgets it when it is closed
        return self._known_transport
