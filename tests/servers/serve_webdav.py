"""What `webdav_server` runs: WsgiDAV on a folder, behind cheroot with its connections counted."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, ClassVar

from cheroot import wsgi
from cheroot.server import HTTPConnection
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

from tests.servers._child import Announcement, Config, folder_to_serve, run_child
from tests.servers._statistics import Tally, publish_statistics

# A server that closed idle connections itself would hide clients that never do.
KEEP_ALIVE_SECONDS = 3600
KEEP_ALIVE_CONNECTIONS = 1000


class CountedConnection(HTTPConnection):
    """One client. cheroot makes it when it has accepted the connection, and always closes it."""

    tally: ClassVar[Tally]
    _open = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.tally.connection_opened()
        self._open = True
        super().__init__(*arguments, **options)

    def close(self) -> None:
        super().close()
        if self._open:
            self._open = False
            self.tally.connection_closed()


def application(root: str, config: Config) -> WsgiDAVApp:
    """WsgiDAV with one user, and without what a browser would need."""
    return WsgiDAVApp(
        {
            "provider_mapping": {"/": FilesystemProvider(root, readonly=False, fs_opts={})},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "simple_dc": {"user_mapping": {"*": {config["username"]: {"password": config["password"]}}}},
            "dir_browser": {"enable": False},
            "verbose": 0,
            "logging": {"enable": False},
        }
    )


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    root = folder_to_serve(config, cleanup)
    CountedConnection.tally = tally = Tally()
    files = application(root, config)

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        tally.request_received()
        return files(environ, start_response)

    server = wsgi.Server(("127.0.0.1", 0), answer, timeout=KEEP_ALIVE_SECONDS, request_queue_size=1024)
    server.ConnectionClass = CountedConnection
    server.keep_alive_conn_limit = KEEP_ALIVE_CONNECTIONS
    server.prepare()
    threading.Thread(target=server.serve, name="webdav", daemon=True).start()
    port = server.bind_addr[1]
    return {
        "url": f"http://127.0.0.1:{port}",
        "port": port,
        "statistics_port": publish_statistics(tally.read),
        "root": root,
    }


if __name__ == "__main__":
    run_child(serve)
