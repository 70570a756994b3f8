"""adlfs holds an Azure service client and, where the user gave none, two credentials that it made itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

import aiohttp

from managed_store._closers._aiohttp import AiohttpCloser
from managed_store._search import held_by

__all__ = ["AzureCloser"]


class AzureCloser(AiohttpCloser):
    """Closes the service client of ``adlfs.AzureBlobFileSystem``, and the credentials that are its own.

    A credential that the user handed in is borrowed, and so is the session that it holds.
    """

    openers: ClassVar[tuple[str, ...]] = ()

    async def open(self) -> None:
        """Open nothing: each of Azure's transports opens its session with its first request, and never two."""

    def _notice_from_birth(self) -> None:
        for transport in self._transports():
            self._notice_what_is_opened_by(transport, "open")

    def sessions(self) -> Iterator[aiohttp.ClientSession]:
        return self._within(lambda value: isinstance(value, aiohttp.ClientSession))

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        super().seal(refuse)
        for transport in self._transports():
            transport.open = refuse

    async def close(self) -> None:
        client = getattr(self.filesystem, "service_client", None)  # missing while the constructor fails
        if client is not None:
            await client.close()
        for credential in self._own_credentials():
            closing = credential.close()
            if closing is not None:  # the synchronous one's is done
                await closing
        await super().close()

    def _transports(self) -> Iterator[Any]:
        from azure.core.pipeline.transport import AsyncHttpTransport

        return self._within(lambda value: isinstance(value, AsyncHttpTransport))

    def _own_credentials(self) -> list[Any]:
        named = (getattr(self.filesystem, name, None) for name in ("credential", "sync_credential"))
        return [each for each in named if each is not None and hasattr(each, "close") and each is not self._borrowed]

    @property
    def _borrowed(self) -> Any:
        return getattr(self.filesystem, "storage_options", {}).get("credential")

    def _within(self, wanted: Callable[[Any], bool]) -> Iterator[Any]:
        holders = [getattr(self.filesystem, "service_client", None), *self._own_credentials()]
        return held_by(holders, wanted, borrowed=[self._borrowed])
