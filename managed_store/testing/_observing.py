"""What this process is connected to, and calls from a thread without an event loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from managed_store.errors import MissingPackageError

__all__ = ["call_in_a_thread", "connected_sockets", "connections_made"]


def call_in_a_thread(step: Callable[[], None]) -> None:
    """Call from another thread, which has no event loop, and pass on what that raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="closer contract")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def connected_sockets() -> set[int]:
    """The descriptors of the TCP sockets of this process that do not listen."""
    try:
        import psutil
    except ImportError as error:
        raise MissingPackageError(
            "The closer contract counts sockets with the package 'psutil': pip install psutil.", name="psutil"
        ) from error
    connections = psutil.Process().net_connections(kind="tcp")
    return {connection.fd for connection in connections if connection.status != psutil.CONN_LISTEN}


@contextmanager
def connections_made() -> Iterator[list[Any]]:
    """Note the addresses that any socket of Python's is told to connect to while the block lasts."""
    made: list[Any] = []
    connect = socket.socket.connect

    def noting(self: socket.socket, address: Any) -> None:
        made.append(address)
        connect(self, address)

    with mock.patch.object(socket.socket, "connect", noting):
        yield made
