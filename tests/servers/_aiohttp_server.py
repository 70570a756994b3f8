"""Serve one aiohttp handler on a port of its own, with connections and requests counted."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from aiohttp import web

from tests.servers._certificate import make_certificate
from tests.servers._child import Announcement, Config
from tests.servers._statistics import Tally, publish_statistics

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# A server that closed idle connections itself would hide clients that never do.
KEEP_ALIVE_SECONDS = 3600.0


class CountingServer(web.Server):
    """aiohttp's low-level server (no routing, no middleware: they cost time on each request), with a tally."""

    def __init__(self, handler: Handler, tally: Tally) -> None:
        super().__init__(handler, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS)
        self._tally = tally

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._tally.connection_opened()
        super().connection_made(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._tally.connection_closed()
        super().connection_lost(handler, exc)


def serve_aiohttp(handler: Handler, config: Config, cleanup: ExitStack) -> Announcement:
    """Serve on a daemon thread. The configuration may hold `tls`, and `latency` in seconds per request."""
    tally = Tally()
    latency = float(config.get("latency", 0.0))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        tally.request_received()
        if latency:
            await asyncio.sleep(latency)
        return await handler(request)

    context = None
    ca_file = None
    if config.get("tls"):
        certificate = make_certificate(cleanup)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate_file, certificate.key_file)
        ca_file = str(certificate.ca_file)

    # The socket listens from here on: a client that comes before the loop runs just waits.
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    threading.Thread(target=asyncio.run, args=[_serve(listener, answer, tally, context)], daemon=True).start()
    return {
        "url": f"{'https' if context else 'http'}://127.0.0.1:{port}",
        "port": port,
        "statistics_port": publish_statistics(tally.read),
        "ca_file": ca_file,
    }


async def _serve(listener: socket.socket, handler: Handler, tally: Tally, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(CountingServer(handler, tally), sock=listener, ssl=context)
    await server.serve_forever()
