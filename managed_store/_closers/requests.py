"""Filesystems that speak through ``fs.session`` of the package requests: WebHDFS, Databricks, Jupyter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from managed_store._closers._blocking import BlockingCloser

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["RequestsCloser", "close_session", "has_connections", "pools_of"]


class RequestsCloser(BlockingCloser):
    """Closes the pooled connections of a ``requests.Session``."""

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._pools: list[Any] = []

    def notice(self) -> None:
        for session in self._sessions():
            self._pools += [pool for pool in pools_of(session) if pool not in self._pools]

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        for session in self._sessions():
            session.send = refuse  # a closed session would quietly connect anew

    def let_go(self) -> None:
        self.notice()
        for session in self._sessions():
            close_session(session)

    def force(self) -> None:
        self.let_go()

    def still_open(self) -> list[str]:
        self.notice()
        return ["pooled HTTP connection" for pool in self._pools if has_connections(pool)]

    def _sessions(self) -> list[Any]:
        session = getattr(self.filesystem, "session", None)  # made by the constructor, or after it
        return [] if session is None else [session]


def close_session(session: Any) -> None:
    """Close a session and its connections: `Session.close` alone leaves those to the garbage collector.

    Parameters
    ----------
    session : requests.Session
        The session.
    """
    for pool in pools_of(session):
        pool.close()
    session.close()


def pools_of(session: Any) -> list[Any]:
    """The pools of connections of a ``requests.Session``: urllib3's, one for each host."""
    pools = []
    for adapter in session.adapters.values():
        managers = (getattr(adapter, "poolmanager", None), *getattr(adapter, "proxy_manager", {}).values())
        for manager in filter(None, managers):
            pools += [manager.pools.get(key) for key in manager.pools.keys()]  # noqa: SIM118 - it has no iterator
    return [pool for pool in pools if pool is not None]


def has_connections(pool: Any) -> bool:
    """Whether a pool of urllib3 holds an open connection."""
    return pool.pool is not None and any(each is not None and each.sock is not None for each in tuple(pool.pool.queue))
