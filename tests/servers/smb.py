"""An SMB server of a folder, by impacket, for fsspec's SMB filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._account import account_server
from tests.servers._handle import AccountServer


@dataclass(frozen=True, kw_only=True)
class SMBServer(AccountServer):
    """A running SMB server with one share, which `url` names: paths begin with it."""

    share: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for fsspec's filesystem, which would otherwise take a second before it gives up on a server."""
        return {**super().storage_options, "register_session_retries": 0}


@contextmanager
def smb_server(root: Path | None = None) -> Iterator[SMBServer]:
    """Serve the folder `root`, or else an empty temporary one."""
    with account_server(SMBServer, "serve_smb", root, share="share") as server:
        yield server
