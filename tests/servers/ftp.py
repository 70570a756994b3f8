"""An FTP server of a folder, by pyftpdlib, for fsspec's FTP filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers._account import account_server
from tests.servers._handle import AccountServer


@dataclass(frozen=True, kw_only=True)
class FTPServer(AccountServer):
    """A running FTP server; without user and password, clients are anonymous and may do just as much."""

    def data_connections(self) -> int:
        """The number of the open connections that carry a file or a listing; the others wait for commands."""
        return self.statistics().data_connections


@contextmanager
def ftp_server(root: Path | None = None) -> Iterator[FTPServer]:
    """Serve the folder `root`, or else an empty temporary one."""
    with account_server(FTPServer, "serve_ftp", root) as server:
        yield server
