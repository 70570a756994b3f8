"""fsspec's FTP filesystem holds one control connection, ``fs.ftp``, and a data connection while it transfers."""

from __future__ import annotations

import ftplib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from managed_store._closers._blocking import BlockingCloser

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["FtpCloser"]


class FtpCloser(BlockingCloser):
    """Says goodbye on the control connection of ``fsspec.implementations.ftp.FTPFileSystem``.

    The filesystem connects anew after a transfer that it broke off, and drops the connection that it had: that is
    closed here. A data connection is known only within ftplib's call, where it is caught as it is made.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._data: list[Any] = []
        self._watch()
        connect = self.filesystem._connect

        def connect_anew() -> None:
            self._client().close()
            connect()
            self._watch()

        self.filesystem._connect = connect_anew

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        self.filesystem._connect = refuse

    def let_go(self) -> None:
        client = self._client()
        if client.sock is None:
            return
        try:
            client.quit()
        except ftplib.all_errors:  # the server has gone already
            pass
        finally:
            client.close()

    def sockets(self) -> Iterable[Any]:
        yield from (each for each in self._data if each.fileno() != -1)
        control = self._client().sock
        if control is not None:
            yield control

    def force(self) -> None:
        super().force()
        self._client().close()

    def close_copies(self) -> None:
        super().close_copies()
        self._client().close()  # a file that reads from it keeps its socket open

    def still_open(self) -> list[str]:
        return ["FTP connection" for each in self.sockets() if each.fileno() != -1]

    def _client(self) -> Any:
        # Missing while the constructor fails; one that was never connected has nothing to close.
        return getattr(self.filesystem, "ftp", None) or ftplib.FTP()  # noqa: S321 - the user's choice

    def _watch(self) -> None:
        client = self._client()
        transfer = client.ntransfercmd

        def remembering(*args: Any, **kwargs: Any) -> Any:
            connection, size = transfer(*args, **kwargs)
            self._data = [connection]  # one transfer at a time
            return connection, size

        client.ntransfercmd = remembering
