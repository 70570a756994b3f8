"""What `s3_server` runs: moto's S3 application behind a request handler that keeps connections alive.

moto's own server closes the connection after each answer, so that no client ever pools a socket, and
sends the Server header twice, which aiohttp's strict parser (under `-X dev`) refuses.
"""

from __future__ import annotations

import io
import threading
import time
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, ClassVar

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.test import run_wsgi_app

from tests.servers._child import Announcement, Config, run_child
from tests.servers._statistics import Tally, publish_statistics

_STATUSES_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class KeepAliveHandler(MotoRequestHandler):
    """Answers any number of requests on one connection. There is one handler, and one thread, per connection."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes: Nagle's algorithm would hold back the second for 40 ms.
    disable_nagle_algorithm = True
    tally: ClassVar[Tally]
    latency: ClassVar[float]

    def handle(self) -> None:
        self.tally.connection_opened()
        try:
            super().handle()
        finally:
            self.tally.connection_closed()

    def run_wsgi(self) -> None:
        """Run the application with the whole request in memory and send its whole answer.

        So the connection is always left at the beginning of the next request, whatever moto did not read,
        and the length of the answer is always known.
        """
        self.tally.request_received()
        time.sleep(self.latency)
        environ = self.make_environ()
        environ["wsgi.input"] = io.BytesIO(self._request_body(environ))
        answer, status_line, headers = run_wsgi_app(self.server.app, environ, buffered=True)
        self._send(int(status_line.split(None, 1)[0]), dict(headers.items()), b"".join(answer))

    def _request_body(self, environ: dict[str, Any]) -> bytes:
        if environ.get("wsgi.input_terminated"):
            # Sent in chunks: werkzeug's input takes them apart, and ends where they end.
            body: bytes = environ["wsgi.input"].read()
            return body
        return self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0))

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        # Not send_response: that adds the Server header, which moto sends as well.
        self.send_response_only(status)
        # What belongs to the connection is for this class to say.
        for name in [name for name in headers if name.lower() in {"connection", "transfer-encoding"}]:
            del headers[name]
        if status in _STATUSES_WITHOUT_BODY:
            body = b""
        elif self.command == "HEAD":
            # moto says in this header how long the object is.
            body = b""
            headers.setdefault("Content-Length", "0")
        else:
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: nobody reads it."""


class QuietServer(ThreadedWSGIServer):
    """A thread per connection, with a long queue for clients that open many at once."""

    request_queue_size = 1024


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    KeepAliveHandler.tally = tally = Tally()
    KeepAliveHandler.latency = float(config.get("latency", 0.0))
    server = QuietServer("127.0.0.1", 0, create_backend_app("s3"), KeepAliveHandler)
    threading.Thread(target=server.serve_forever, name="moto", daemon=True).start()
    return {
        "url": f"http://127.0.0.1:{server.port}",
        "port": server.port,
        "statistics_port": publish_statistics(tally.read),
    }


if __name__ == "__main__":
    run_child(serve)
