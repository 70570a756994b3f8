"""What `ftp_server` runs: pyftpdlib on a folder, with its control and data connections counted."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import DTPHandler, FTPHandler
from pyftpdlib.servers import FTPServer

from tests.servers._child import Announcement, Config, folder_to_serve, run_child
from tests.servers._statistics import ServerStatistics, Tally, publish_statistics

# All that its authorizer knows.
PERMISSIONS = "elradfmwMT"

control = Tally()
data = Tally()


class CountedDataConnection(DTPHandler):
    """One file or listing on its way."""

    _open = False

    def __init__(self, *arguments: Any) -> None:
        data.connection_opened()
        self._open = True
        super().__init__(*arguments)

    def close(self) -> None:
        super().close()
        if self._open:
            self._open = False
            data.connection_closed()


class CountedConnection(FTPHandler):
    """A client that sends its commands."""

    dtp_handler = CountedDataConnection
    # A server that closed idle connections itself would hide clients that never do.
    timeout = 0
    auth_failed_timeout = 0
    _open = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        control.connection_opened()
        self._open = True
        super().__init__(*arguments, **options)

    def pre_process_command(self, *arguments: Any) -> None:
        control.request_received()
        super().pre_process_command(*arguments)

    def close(self) -> None:
        super().close()
        if self._open:
            self._open = False
            control.connection_closed()


def read_statistics() -> ServerStatistics:
    """Control and data connections together; the latter also alone."""
    controls, transfers = control.read(), data.read()
    return replace(
        controls,
        connections=controls.connections + transfers.connections,
        opened=controls.opened + transfers.opened,
        data_connections=transfers.connections,
        data_opened=transfers.opened,
    )


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    # Otherwise it logs each command.
    logging.basicConfig(level=logging.ERROR)
    root = folder_to_serve(config, cleanup)
    authorizer = DummyAuthorizer()
    authorizer.add_user(config["username"], config["password"], root, perm=PERMISSIONS)
    authorizer.add_anonymous(root, perm=PERMISSIONS)
    CountedConnection.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), CountedConnection, backlog=1024)
    port = server.address[1]
    threading.Thread(target=server.serve_forever, kwargs={"handle_exit": False}, name="ftp", daemon=True).start()
    return {
        "url": f"ftp://127.0.0.1:{port}",
        "port": port,
        "statistics_port": publish_statistics(read_statistics),
        "root": root,
    }


if __name__ == "__main__":
    run_child(serve)
