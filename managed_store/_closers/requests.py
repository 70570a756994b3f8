"""Filesystems that speak through ``fs.session`` of the package requests: WebHDFS, Databricks, Jupyter."""

from __future__ import annotations

from managed_store._closers._blocking import BlockingCloser

__all__ = ["RequestsCloser"]


class RequestsCloser(BlockingCloser):
    """Closes the pooled connections of a ``requests.Session``."""

    def let_go(self) -> None:
        session = getattr(self.filesystem, "session", None)  # made by the constructor, or after it
        if session is not None:
            session.close()

    def force(self) -> None:
        self.let_go()
