"""fsspec's HTTP filesystem holds one aiohttp session, ``fs._session``."""

from __future__ import annotations

from typing import ClassVar

from managed_store._closers._aiohttp import AiohttpCloser

__all__ = ["HttpCloser"]


class HttpCloser(AiohttpCloser):
    """Closes the session of ``fsspec.implementations.http.HTTPFileSystem``."""

    openers: ClassVar[tuple[str, ...]] = ("set_session",)
