"""fsspec's HTTP filesystem holds one aiohttp session, ``fs._session``, or what a user's `get_client` has made."""

from __future__ import annotations

from collections.abc import Iterable

import aiohttp

from managed_store._closers._aiohttp import AiohttpCloser

__all__ = ["HttpCloser"]


class HttpCloser(AiohttpCloser):
    """Closes the session of ``fsspec.implementations.http.HTTPFileSystem``, which `set_session` opens.

    A user's `get_client` may also make a client that is laid around a session, as that of aiohttp_retry is.
    """

    def sessions(self) -> Iterable[aiohttp.ClientSession]:
        for client in super().sessions():
            if isinstance(client, aiohttp.ClientSession):
                yield client
            else:
                yield from (each for each in vars(client).values() if isinstance(each, aiohttp.ClientSession))

    async def close(self) -> None:
        await super().close()
        for client in super().sessions():
            if not isinstance(client, aiohttp.ClientSession):
                await client.close()
