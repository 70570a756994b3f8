"""What `sftp_server` runs: asyncssh on a folder, with nothing but SFTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack
from functools import partial
from typing import Any

import asyncssh

from tests.servers._child import Announcement, Config, folder_to_serve, run_child
from tests.servers._statistics import Tally, publish_statistics


class CountedConnection(asyncssh.SSHServer):
    """One client, counted from when it connects: before it has logged in, and also if it never does."""

    def __init__(self, tally: Tally, config: Config) -> None:
        self._tally = tally
        self._account = (config["username"], config["password"])

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._tally.connection_opened()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.connection_closed()

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == self._account


class CountingFiles(asyncssh.SFTPServer):
    """The files below one folder, with the requests counted that are of use in a test."""

    def __init__(self, chan: Any, *, root: str, tally: Tally) -> None:
        super().__init__(chan, chroot=root.encode())
        self._tally = tally

    def open(self, *arguments: Any) -> Any:
        self._tally.request_received()
        return super().open(*arguments)

    def read(self, *arguments: Any) -> Any:
        self._tally.request_received()
        return super().read(*arguments)

    def write(self, *arguments: Any) -> Any:
        self._tally.request_received()
        return super().write(*arguments)

    def stat(self, *arguments: Any) -> Any:
        self._tally.request_received()
        return super().stat(*arguments)

    def scandir(self, *arguments: Any) -> Any:
        self._tally.request_received()
        return super().scandir(*arguments)


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    root = folder_to_serve(config, cleanup)
    tally = Tally()
    # The socket listens from here on: a client that comes before the loop runs just waits.
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    threading.Thread(target=asyncio.run, args=[_serve(listener, root, tally, config)], daemon=True).start()
    return {
        "url": f"sftp://127.0.0.1:{port}",
        "port": port,
        "statistics_port": publish_statistics(tally.read),
        "root": root,
    }


async def _serve(listener: socket.socket, root: str, tally: Tally, config: Config) -> None:
    await asyncssh.listen(
        sock=listener,
        # Not the settings of this machine's user.
        config=None,
        server_factory=partial(CountedConnection, tally, config),
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=partial(CountingFiles, root=root, tally=tally),
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    run_child(serve)
