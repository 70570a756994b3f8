"""What `gcs_grpc_server` runs: the JSON API of `serve_gcs`, and gRPC services about the same buckets.

gcsfs takes one address for all: it sends JSON there by HTTP/1, calls for storage-control under TLS, and, being
anonymous, calls for data by HTTP/2 in the clear. So all three are answered on one port.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import grpc
from aiohttp import web

from tests.servers._aiohttp_server import KEEP_ALIVE_SECONDS
from tests.servers._certificate import Certificate, make_certificate
from tests.servers._child import Announcement, Config, run_child
from tests.servers._one_port import FrontDoor
from tests.servers._statistics import ServerStatistics, Tally, publish_statistics
from tests.servers.gcs_objects import Bucket
from tests.servers.gcs_services import StorageServices
from tests.servers.serve_gcs import StorageHandler


class CountingInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls of a gRPC server, and makes each of them wait."""

    def __init__(self, tally: Tally, latency: float) -> None:
        self._tally = tally
        self._latency = latency

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        self._tally.request_received()
        await asyncio.sleep(self._latency)
        return await continuation(details)


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    """Serve on a daemon thread."""
    certificate = make_certificate(cleanup)
    tally, grpc_tally = Tally(), Tally()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    async def run() -> None:
        try:
            await _serve(listener, certificate, float(config["latency"]), tally, grpc_tally, started)
        except BaseException as error:
            started.put(error)
            raise

    def read_statistics() -> ServerStatistics:
        everything, calls = tally.read(), grpc_tally.read()
        return ServerStatistics(everything.connections, everything.opened, everything.requests + calls.requests)

    threading.Thread(target=asyncio.run, args=[run()], daemon=True).start()
    if error := started.get():
        raise error
    port = listener.getsockname()[1]
    return {
        "url": f"http://127.0.0.1:{port}",
        "port": port,
        "statistics_port": publish_statistics(read_statistics),
        "grpc_statistics_port": publish_statistics(grpc_tally.read),
        "grpc_ca_file": str(certificate.ca_file),
    }


async def _serve(
    listener: socket.socket,
    certificate: Certificate,
    latency: float,
    tally: Tally,
    grpc_tally: Tally,
    started: queue.SimpleQueue[BaseException | None],
) -> None:
    buckets: dict[str, Bucket] = {}
    json_api = StorageHandler(buckets)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        tally.request_received()
        await asyncio.sleep(latency)
        return await json_api.answer(request)

    grpc_server = grpc.aio.server(interceptors=[CountingInterceptor(grpc_tally, latency)])
    grpc_server.add_generic_rpc_handlers(StorageServices(buckets).handlers())
    pair = (certificate.key_file.read_bytes(), certificate.certificate_file.read_bytes())
    tls_port = grpc_server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    http2_port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()

    http = web.Server(answer, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS)

    def front_door() -> FrontDoor:
        return FrontDoor(http, http2_port=http2_port, tls_port=tls_port, tally=tally, relay_tally=grpc_tally)

    server = await asyncio.get_running_loop().create_server(front_door, sock=listener)
    started.put(None)
    await server.serve_forever()


if __name__ == "__main__":
    run_child(serve)
