"""An HTTP server in a thread of the test, for answers that no decent server gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass(frozen=True)
class Answer:
    """What the server sends back. It may promise more than it sends, or not say how much it sends."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    declared_length: int | None = None
    tells_length: bool = True


Respond = Callable[[str, str, Mapping[str, str]], Answer]
"""From method, path and headers to the answer."""


class _Handler(BaseHTTPRequestHandler):
    """One request on each connection, as HTTP/1.0 has it: nothing is left to close afterwards."""

    respond: ClassVar[Respond]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = type(self).respond(self.command, self.path, self.headers)
        self.send_response(answer.status)
        length = len(answer.body) if answer.declared_length is None else answer.declared_length
        told = {"Content-Length": str(length)} if answer.tells_length else {}
        for name, value in {**told, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: nobody reads it."""


class _Server(ThreadingHTTPServer):
    """With a queue for many connections at once: where it overflows, clients wait for seconds."""

    request_queue_size = 128


@contextmanager
def tiny_server(respond: Respond) -> Iterator[str]:
    """Serve on the loopback interface while the block lasts; gives the URL, without a trailing slash."""
    handler = type("Handler", (_Handler,), {"respond": staticmethod(respond)})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def files(contents: Mapping[str, bytes]) -> Respond:
    """Answer as a server of these files that ignores Range, or with 404."""

    def respond(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        key = path.lstrip("/")
        return Answer(body=contents[key]) if key in contents else Answer(404)

    return respond
