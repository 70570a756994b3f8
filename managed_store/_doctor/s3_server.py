"""moto's S3 server, where moto is installed with its extras ``s3`` and ``server``."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

__all__ = ["serve_buckets"]


class _Handler(MotoRequestHandler):  # type: ignore[misc, unused-ignore]  # moto's is untyped in some releases
    def send_response(self, code: int, message: str | None = None) -> None:
        """Send no Server header: moto does, and aiohttp's strict parser refuses two."""
        self.send_response_only(code, message)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


@contextmanager
def serve_buckets() -> Iterator[str]:
    """Serve an empty bucket ``bucket``, and give the endpoint's URL."""
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever, name="managed-store-doctor-s3", daemon=True)
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("PUT", "/bucket")
        connection.getresponse().read()
        connection.close()
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
