"""Letting go of connections that belong to blocking clients: shared by the synchronous backends."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from managed_store._closers._closer import Closer
from managed_store._threads import in_helper_thread

__all__ = ["BlockingCloser", "shut_down"]


class BlockingCloser(Closer):
    """The closer of a synchronous filesystem. A subclass says how it lets go, and which sockets it has."""

    def let_go(self) -> None:
        """Close gracefully. May block, and may raise; runs in a thread of its own."""

    def sockets(self) -> Iterable[Any]:
        """The sockets that are open. Shutting them down ends every call that waits for one."""
        return ()

    def close_socket(self, sock: Any) -> None:
        """Close one of the sockets, which is shut down. Must not block."""
        sock.close()

    async def close(self) -> None:
        await in_helper_thread(self.let_go)

    def force(self) -> None:
        for each in tuple(self.sockets()):
            shut_down(each)
            self.close_socket(each)

    def close_copies(self) -> None:
        for each in tuple(self.sockets()):
            each.close()


def shut_down(sock: Any) -> None:
    """End the connection of a socket, which wakes every thread that waits for it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected any more
        pass
