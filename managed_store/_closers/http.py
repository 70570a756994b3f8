"""fsspec's HTTP filesystem holds one aiohttp session, ``fs._session``."""

from __future__ import annotations

from managed_store._closers._aiohttp import AiohttpCloser

__all__ = ["HttpCloser"]


class HttpCloser(AiohttpCloser):
    """Closes the session of ``fsspec.implementations.http.HTTPFileSystem``, which `set_session` opens."""
