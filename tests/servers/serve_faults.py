"""What `fault_proxy` runs: a TCP proxy in front of a server, which shows one fault of a bad day at a time."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict

from tests.servers._child import Announcement, Config, run_child
from tests.servers._faulty_connection import SILENT, Fault, FaultyConnection, Seen
from tests.servers._statistics import ServerStatistics, publish_statistics

# How many connections may wait to be accepted, as long as any are.
_BACKLOG = 1024


class Proxy:
    """Listens, and shows one fault. Only the thread that answers for control changes it, through `show`."""

    def __init__(self, target: int, fault: Fault, *, tls: bool) -> None:
        self._target = target
        self._tls = tls
        self._fault: Fault = "pass"
        self._seen: list[Seen] = []
        self._requests = 0
        self._lock = threading.Lock()
        self._kept: list[socket.socket] = []
        self._fillers: list[socket.socket] = []
        # Bound, and never listening: keeps the port for us while it is closed to clients.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]
        self._listener = self._accepting()
        self.show(fault)

    def show(self, fault: Fault) -> None:
        """Show this fault from now on; all connections see it at their next step."""
        was, self._fault = self._fault, fault
        if fault not in SILENT:
            while self._kept:
                self._kept.pop().close()
        if was == fault or not {was, fault} & {"refuse", "delay_accept"}:
            return
        # The kernel goes on accepting for a listener that does not: only a new one begins with an empty queue.
        _close(self._listener)
        while self._fillers:
            self._fillers.pop().close()
        if fault == "delay_accept":
            self._listener = self._listening(0)
            self._fill()
        elif fault != "refuse":
            self._listener = self._accepting()

    def statistics(self) -> ServerStatistics:
        seen = self.seen()
        return ServerStatistics(
            connections=sum(each.ended is None for each in seen), opened=len(seen), requests=self._requests
        )

    def seen(self) -> list[Seen]:
        """All connections so far, in the order in which they were opened."""
        return list(self._seen)

    def _listening(self, backlog: int) -> socket.socket:
        listener = _bound(self.port)
        listener.listen(backlog)
        return listener

    def _accepting(self) -> socket.socket:
        listener = self._listening(_BACKLOG)
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # shut down by `show`
                return
            seen = Seen(time.monotonic())
            self._seen.append(seen)
            connection = FaultyConnection(
                client,
                self._target,
                seen,
                tls=self._tls,
                fault=lambda: self._fault,
                received=self._count_request,
                keep=self._kept.append,
            )
            threading.Thread(target=connection.serve, daemon=True).start()

    def _fill(self) -> None:
        """Connect to our own port until the kernel lets nobody in any more."""
        for _ in range(8):
            filler = socket.socket()
            self._fillers.append(filler)
            filler.settimeout(0.05)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return

    def _count_request(self) -> None:
        with self._lock:
            self._requests += 1


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _close(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts, which would keep it open
    listener.close()


def take_orders(proxy: Proxy) -> int:
    """Answer each connection to a new port, on a daemon thread; return the port.

    One line says which fault to show, or is empty; the answer tells of all connections.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            connection, _ = listener.accept()
            # Whoever left early must not end the thread.
            with connection, contextlib.suppress(ConnectionError):
                order = connection.makefile("rb").readline().decode().strip()
                if order:
                    proxy.show(order)  # type: ignore[arg-type]  # its handle sends nothing else
                connection.sendall(json.dumps([asdict(each) for each in proxy.seen()]).encode())

    threading.Thread(target=answer, name="control", daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    proxy = Proxy(config["target"], config["fault"], tls=config["tls"])
    return {
        "port": proxy.port,
        "statistics_port": publish_statistics(proxy.statistics),
        "control_port": take_orders(proxy),
    }


if __name__ == "__main__":
    run_child(serve)
