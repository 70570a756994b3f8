"""A WebDAV server of a folder, by WsgiDAV, for webdav4's filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._account import account_server
from tests.servers._handle import AccountServer


@dataclass(frozen=True, kw_only=True)
class WebDAVServer(AccountServer):
    """A running WebDAV server, which keeps its connections alive."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for webdav4's filesystem; its URLs (`webdav://folder/file`) do not name the server."""
        return {"base_url": self.url, "auth": (self.username, self.password)}


@contextmanager
def webdav_server(root: Path | None = None) -> Iterator[WebDAVServer]:
    """Serve the folder `root`, or else an empty temporary one."""
    with account_server(WebDAVServer, "serve_webdav", root) as server:
        yield server
