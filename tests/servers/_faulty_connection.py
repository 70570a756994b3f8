"""One client's connection through the proxy of `serve_faults.py`, under whatever fault is shown at the moment.

Sockets without asyncio: what matters here is which bytes are read, who closes when, and whether by FIN or RST, and
a transport decides all of that by itself.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

Fault = Literal[
    "pass",
    "hang",
    "drip",
    "reset",
    "truncate",
    "refuse",
    "delay_accept",
    "stall_tls_handshake",
    "stall_tls_shutdown",
    "vanish",
]
Ending = Literal["fin", "rst", "proxy"]

# Under these no connection gets an answer, and none is closed by the proxy, not even when the client has closed it.
SILENT: frozenset[Fault] = frozenset({"hang", "vanish"})

_BLOCK = 1 << 16
_MOST_HELD_BACK = 1 << 20
# In seconds: between two bytes that drip, and until a connection looks again whether the fault is still the same.
_DRIP = 1.0
_LOOK_AGAIN = 0.01

_TLS_ALERT, _TLS_DATA = 21, 23
# Under TLS 1.3 an alert is sent as data: two bytes, another for its type, and sixteen that authenticate them.
_TLS_ALERT_LENGTH = 19


@dataclass
class Seen:
    """When a connection was opened and ended, by the clock that all processes share, and who ended it."""

    opened: float
    ended: float | None = None
    how: Ending | None = None


class ClientRecords:
    """Follows what a client sends under TLS, record by record, until it says goodbye (``close_notify``)."""

    def __init__(self) -> None:
        self._head = b""
        self._body_left = 0
        self.said_goodbye = False

    def follow(self, data: bytes) -> None:
        while data:
            if self._body_left:
                taken = min(self._body_left, len(data))
                self._body_left -= taken
            else:
                taken = min(5 - len(self._head), len(data))
                self._head += data[:taken]
                if len(self._head) == 5:
                    kind, _, self._body_left = struct.unpack("!BHH", self._head)
                    self._head = b""
                    self.said_goodbye |= kind == _TLS_ALERT or (
                        kind == _TLS_DATA and self._body_left == _TLS_ALERT_LENGTH
                    )
            data = data[taken:]


class FaultyConnection:
    """A client's socket and ours to the server, which is made with the first byte that there is to pass on.

    `fault` tells what is shown now; `received` is called once for each request; `keep` is given the sockets that the
    client has closed and we do not.
    """

    def __init__(
        self,
        client: socket.socket,
        target: int,
        seen: Seen,
        *,
        tls: bool,
        fault: Callable[[], Fault],
        received: Callable[[], None],
        keep: Callable[[socket.socket], None],
    ) -> None:
        self._client = client
        self._target = target
        self._seen = seen
        self._fault = fault
        self._received = received
        self._keep = keep
        self._server: socket.socket | None = None
        self._server_has_ended = False
        self._records = ClientRecords() if tls else None
        self._answer = bytearray()
        self._is_answered = True  # what the client has sent so far
        self._given = 0
        self._handshake_stalls = False
        self._next_drop = 0.0
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Pass on what the fault lets through, until one side ends the connection. Blocks: for a thread of its own."""
        try:
            while self._seen.ended is None:
                self._step(self._fault())
        except ConnectionError:  # since the poll
            self._note("rst")
            self._client.close()
        finally:
            if self._server is not None:
                self._server.close()

    def _step(self, fault: Fault) -> None:
        if fault == "refuse":
            self._reset()
            return
        of_client, of_server = self._wait(fault)
        if self._fault() != fault:  # changed meanwhile: what has come is still there to be read
            return
        if of_client & (select.POLLERR | select.POLLHUP | select.POLLRDHUP):
            self._follow_client("rst" if of_client & select.POLLERR else "fin", fault)
            return
        if of_client & select.POLLIN:
            self._take_request()
        if of_server:
            self._take_answer()
        if self._answer and (allowed := self._allowance(fault)):
            self._give(allowed, fault)
        elif self._server_has_ended and not self._answer and self._passes(fault):
            self._finish()

    def _wait(self, fault: Fault) -> tuple[int, int]:
        """What can be done with the two sockets. POLLRDHUP tells that a client has closed without reading from it."""
        poll = select.poll()
        reads = 0 if fault == "vanish" else select.POLLIN
        writes = select.POLLOUT if self._answer and self._allowance(fault) else 0
        poll.register(self._client, select.POLLRDHUP | reads | writes)
        if self._server is not None and not self._server_has_ended and reads and len(self._answer) < _MOST_HELD_BACK:
            poll.register(self._server, select.POLLIN)
        events = dict(poll.poll(_LOOK_AGAIN * 1000))
        of_server = 0 if self._server is None else events.get(self._server.fileno(), 0)
        return events.get(self._client.fileno(), 0), of_server

    # What the faults are

    def _allowance(self, fault: Fault) -> int:
        """How many bytes of the answer the client may have now."""
        half = max(1, len(self._answer) // 2)
        match fault:
            case "hang" | "vanish":
                return 0
            case "drip":
                return 1 if time.monotonic() >= self._next_drop else 0
            case "reset" | "truncate":
                return half
            case "stall_tls_handshake" if self._handshake_stalls:
                return 0
            case "stall_tls_handshake" if not self._given:
                return half
            case "stall_tls_shutdown" if self._is_deaf(fault):
                return 0
        return len(self._answer)

    def _give(self, count: int, fault: Fault) -> None:
        is_first = not self._given
        with suppress(BlockingIOError):
            sent = self._client.send(self._answer[:count])
            self._given += sent
            del self._answer[:sent]
        match fault:
            case "drip":
                self._next_drop = time.monotonic() + _DRIP
            case "reset":
                self._reset()
            case "truncate":
                self._answer.clear()
                self._finish()
            case "stall_tls_handshake" if is_first:
                self._handshake_stalls = True

    def _is_deaf(self, fault: Fault) -> bool:
        """Whether our side stays open when the client has closed its own."""
        goodbye = self._records is not None and self._records.said_goodbye
        return fault in SILENT or (fault == "stall_tls_shutdown" and goodbye)

    def _passes(self, fault: Fault) -> bool:
        """Whether the end of the server's side is passed on."""
        return not self._is_deaf(fault) and fault not in ("drip", "stall_tls_handshake")

    # What goes through

    def _take_request(self) -> bool:
        """Pass on what the client has sent, and return whether that was anything."""
        try:
            request = self._client.recv(_BLOCK)
        except BlockingIOError:
            return False
        if not request:
            return False
        if self._records is not None:
            self._records.follow(request)
        if self._is_answered:
            self._is_answered = False
            self._received()
        if self._server is None:
            self._server = socket.create_connection(("127.0.0.1", self._target))
            self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # the server has had enough; what it said is passed on all the same
            self._server.sendall(request)
        return True

    def _take_answer(self) -> None:
        assert self._server is not None
        try:
            answer = self._server.recv(_BLOCK)
        except ConnectionError:
            answer = b""
        self._server_has_ended = not answer
        self._answer += answer
        self._is_answered |= bool(answer)

    # How it ends

    def _follow_client(self, how: Ending, fault: Fault) -> None:
        """The client has closed: so do we, once the server has all that came before, unless we are deaf."""
        self._note(how)
        if how == "fin" and self._is_deaf(fault):
            self._keep(self._client)
            return
        with suppress(ConnectionError):
            while fault != "vanish" and self._take_request():
                pass
        self._client.close()

    def _reset(self) -> None:
        self._note("proxy")
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.close()

    def _finish(self) -> None:
        """FIN. What the client still sends is read and thrown away: a close over unread bytes would be RST."""
        self._note("proxy")
        self._client.settimeout(2.0)
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
            while self._client.recv(_BLOCK):
                pass
        self._client.close()

    def _note(self, how: Ending) -> None:
        self._seen.how = how
        self._seen.ended = time.monotonic()
