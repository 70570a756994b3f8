"""One port for several protocols: the first bytes of a connection say who is to answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.servers._statistics import Tally

_TLS_HANDSHAKE = b"\x16"
_HTTP2_PREFACE = b"PRI"  # no method of HTTP/1 begins like this


class FrontDoor(asyncio.Protocol):
    """A client's connection, of which nothing has been read yet.

    HTTP/1 is answered here, by a protocol of `http`. HTTP/2 is relayed to the local port `http2_port`, and
    TLS to `tls_port`, as it is: what is below it is not looked at. `tally` counts every connection, and
    `relay_tally` those that are relayed.
    """

    def __init__(
        self, http: Callable[[], Any], *, http2_port: int, tls_port: int, tally: Tally, relay_tally: Tally
    ) -> None:
        self._http = http
        self._http2_port = http2_port
        self._tls_port = tls_port
        self._tally = tally
        self._relay_tally = relay_tally
        self._first = b""
        self._inner: Any = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tally.connection_opened()
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)
            return
        self._first += data
        if len(self._first) < len(_HTTP2_PREFACE):
            return
        if self._first.startswith(_TLS_HANDSHAKE):
            self._inner = Relay(self._tls_port, self._relay_tally)
        elif self._first.startswith(_HTTP2_PREFACE):
            self._inner = Relay(self._http2_port, self._relay_tally)
        else:
            self._inner = self._http()
        self._inner.connection_made(self._transport)
        self._inner.data_received(self._first)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._tally.connection_closed()
        if self._inner is not None:
            self._inner.connection_lost(error)


class Relay(asyncio.Protocol):
    """One side of a connection that is passed on to a local port; it makes the other side itself."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        self._waiting = b""  # what came before the other side was there
        self._transport: Any = None
        self._other: Any = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tally.connection_opened()
        self._transport = transport
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        self._transport.pause_reading()
        loop = asyncio.get_running_loop()
        try:
            self._other, _ = await loop.create_connection(lambda: _Return(self._transport), "127.0.0.1", self._port)
        except OSError:
            self._transport.abort()
            raise
        self._other.write(self._waiting)
        if self._transport.is_closing():  # the client did not wait
            self._other.close()
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._waiting += data
        else:
            self._other.write(data)

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._tally.connection_closed()
        if self._other is not None:
            self._other.close()


class _Return(asyncio.Protocol):
    """The way back to the client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def pause_writing(self) -> None:
        self._client.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._client.close()
