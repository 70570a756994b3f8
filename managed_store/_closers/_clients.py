"""Clients of well-known packages, which a filesystem that nobody here knows may hold, and how each is closed."""

from __future__ import annotations

import operator
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from managed_store._closers._blocking import shut_down
from managed_store._closers.requests import close_session, has_connections, pools_of

__all__ = ["KnownClient", "known_client"]


@dataclass(frozen=True)
class KnownClient:
    """How one kind of client is closed.

    Attributes
    ----------
    name : str
        What it is, for a message.
    close : callable
        Closes one. May block; where `is_async`, returns what is to be awaited.
    is_open : callable
        Whether one is open.
    force : callable, optional
        Cuts one off. The default is `close`, but for what `is_async`.
    is_async : bool
        Whether closing is awaited.
    """

    name: str
    close: Callable[[Any], Any]
    is_open: Callable[[Any], bool]
    force: Callable[[Any], Any] | None = None
    is_async: bool = False


def known_client(value: Any) -> KnownClient | None:
    """How `value` is closed, or None if it is no client that is known."""
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__)
    return next((_CLIENTS[name] for name in names if name in _CLIENTS), None)


def _close_socket(value: socket.socket) -> None:
    shut_down(value)
    value.close()


_close = operator.methodcaller("close")


def _is_connected(client: Any) -> bool:
    """Whether an SSH client has a connection; one that was refused keeps what is left of it."""
    transport = client.get_transport()  # a thread, which ends when it has closed its socket
    return transport is not None and transport.is_alive()


# By the qualified name of the class, so that nothing is imported for it.
_CLIENTS = {
    "concurrent.futures.thread.ThreadPoolExecutor": KnownClient(
        "executor",
        operator.methodcaller("shutdown", wait=True, cancel_futures=True),
        lambda executor: any(thread.is_alive() for thread in executor._threads),
        force=operator.methodcaller("shutdown", wait=False, cancel_futures=True),
    ),
    "ftplib.FTP": KnownClient("FTP connection", _close, lambda client: client.sock is not None),
    "http.client.HTTPConnection": KnownClient("HTTP connection", _close, lambda client: client.sock is not None),
    "httpx.AsyncClient": KnownClient(
        "HTTP client", operator.methodcaller("aclose"), lambda client: not client.is_closed, is_async=True
    ),
    "httpx.Client": KnownClient("HTTP client", _close, lambda client: not client.is_closed),
    "paramiko.client.SSHClient": KnownClient("SSH client", _close, _is_connected),
    "requests.sessions.Session": KnownClient(
        "HTTP session", close_session, lambda session: any(map(has_connections, pools_of(session)))
    ),
    "socket.socket": KnownClient("socket", _close_socket, lambda value: value.fileno() != -1),
}
