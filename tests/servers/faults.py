"""A proxy in front of any of the servers, which behaves as badly as it is told to."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers._faulty_connection import Fault, Seen
from tests.servers._handle import RunningServer
from tests.servers._process import run_server


@dataclass(frozen=True, kw_only=True)
class FaultProxy(RunningServer):
    """A running proxy. What it counts as open is what its clients have not closed, whatever it does itself.

    The faults:

    - ``pass``: none.
    - ``hang``: requests are passed on; answers are held back, and passed on when the fault is over.
    - ``drip``: one byte of the answer a second.
    - ``reset``, ``truncate``: the half of what there is of an answer, then RST or FIN.
    - ``refuse``: every connection is reset, and the port is closed.
    - ``delay_accept``: the queue of those that wait to be accepted is full; open connections go on.
    - ``stall_tls_handshake``: new connections get the half of the first answer, and no more.
    - ``stall_tls_shutdown``: after a client's ``close_notify`` no more is answered, and nothing is closed.
    - ``vanish``: nothing is read or written any more, and nothing is closed.
    """

    control_port: int

    def show(self, fault: Fault) -> None:
        """Show this fault from now on, on the connections that are open too."""
        self._order(fault)

    def seen(self) -> list[Seen]:
        """Every connection so far: when it was opened and ended (`time.monotonic`), and how.

        ``"fin"`` and ``"rst"`` are the client's; ``"proxy"`` is what the proxy ended itself.
        """
        return [Seen(**each) for each in json.loads(self._order(""))]

    def _order(self, order: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.control_port), timeout=5.0) as connection:
            connection.sendall(f"{order}\n".encode())
            received = bytearray()
            while block := connection.recv(4096):
                received += block
        return bytes(received)


@contextmanager
def fault_proxy(target_port: int, *, ca_file: Path | None = None, fault: Fault = "pass") -> Iterator[FaultProxy]:
    """Stand in front of the server on `target_port`. With `ca_file`, it is one that speaks TLS; that is passed on."""
    config = {"target": target_port, "tls": ca_file is not None, "fault": fault}
    with run_server("serve_faults", config) as announced:
        yield FaultProxy(
            url=f"{'https' if ca_file else 'http'}://127.0.0.1:{announced['port']}",
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            control_port=announced["control_port"],
            ca_file=ca_file,
        )
