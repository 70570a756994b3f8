"""What a server has seen: counted in the server's process, read by the tests through a port of its own.

It is a port of its own, so that asking is never counted itself, needs no certificate, takes no path
away from what is served, and is answered even while the server proper is busy.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ServerStatistics:
    """Figures of one server, as it sees them itself."""

    connections: int
    """Client connections that are open now."""
    opened: int
    """Client connections opened since the server started."""
    requests: int
    """Requests that reached a handler since the server started."""
    data_connections: int = 0
    """Of `connections`, those that carry one file or listing each: FTP alone has them."""
    data_opened: int = 0
    """Of `opened`, the same."""


class Tally:
    """Counts connections and requests; safe from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = 0
        self._closed = 0
        self._requests = 0

    def connection_opened(self) -> None:
        with self._lock:
            self._opened += 1

    def connection_closed(self) -> None:
        with self._lock:
            self._closed += 1

    def request_received(self) -> None:
        with self._lock:
            self._requests += 1

    def read(self) -> ServerStatistics:
        with self._lock:
            return ServerStatistics(
                connections=self._opened - self._closed, opened=self._opened, requests=self._requests
            )


def publish_statistics(read: Callable[[], ServerStatistics]) -> int:
    """Answer each connection to a new port with the figures, on a daemon thread; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            connection, _ = listener.accept()
            # A reader that left early must not end the thread.
            with connection, contextlib.suppress(ConnectionError):
                connection.sendall(json.dumps(asdict(read())).encode())

    threading.Thread(target=answer, name="statistics", daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def fetch_statistics(port: int, *, timeout: float = 5.0) -> ServerStatistics:
    """Read the figures which a server publishes on `port`; `timeout` is in seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        received = bytearray()
        while block := connection.recv(4096):
            received += block
    return ServerStatistics(**json.loads(received))
