"""webdav4's filesystem holds a client of the package httpx, ``fs.client.http``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from managed_store._closers._blocking import BlockingCloser

__all__ = ["WebdavCloser"]


class WebdavCloser(BlockingCloser):
    """Closes the HTTP client of ``webdav4.fsspec.WebdavFileSystem``."""

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        client = getattr(self.filesystem, "client", None)
        if client is not None:
            client.http.send = refuse

    def let_go(self) -> None:
        client = getattr(self.filesystem, "client", None)  # missing while the constructor fails
        if client is not None:
            client.http.close()

    def force(self) -> None:
        self.let_go()

    def still_open(self) -> list[str]:
        client = getattr(self.filesystem, "client", None)
        return [] if client is None or client.http.is_closed else ["WebDAV client"]
