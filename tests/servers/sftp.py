"""An SFTP server of a folder, by asyncssh, for fsspec's SFTP filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._account import account_server
from tests.servers._handle import AccountServer


@dataclass(frozen=True, kw_only=True)
class SFTPServer(AccountServer):
    """A running SSH server that knows SFTP alone, with a host key of its own that no client knows."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for fsspec's filesystem: the password alone, and not the keys of whoever runs the tests."""
        return {**super().storage_options, "look_for_keys": False, "allow_agent": False}


@contextmanager
def sftp_server(root: Path | None = None) -> Iterator[SFTPServer]:
    """Serve the folder `root`, or else an empty temporary one."""
    with account_server(SFTPServer, "serve_sftp", root) as server:
        yield server
