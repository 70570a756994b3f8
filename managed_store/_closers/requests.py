"""Filesystems that speak through ``fs.session`` of the package requests: WebHDFS, Databricks, Jupyter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from managed_store._closers._blocking import BlockingCloser

__all__ = ["RequestsCloser", "close_session"]


class RequestsCloser(BlockingCloser):
    """Closes the pooled connections of a ``requests.Session``."""

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        for session in self._sessions():
            session.send = refuse  # a closed session would quietly connect anew

    def let_go(self) -> None:
        for session in self._sessions():
            close_session(session)

    def force(self) -> None:
        self.let_go()

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
    for adapter in session.adapters.values():
        managers = (getattr(adapter, "poolmanager", None), *getattr(adapter, "proxy_manager", {}).values())
        for manager in filter(None, managers):
            for key in manager.pools.keys():  # noqa: SIM118 - urllib3's container cannot be iterated over
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
    session.close()
