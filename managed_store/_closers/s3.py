"""s3fs holds an aiobotocore client, or one client a region, made by a creator that also ends them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from managed_store._closers._aiohttp import AiohttpCloser

__all__ = ["S3Closer"]


class S3Closer(AiohttpCloser):
    """Leaves ``fs._s3creator``, the context manager that holds every client of the filesystem.

    Closing ``fs._s3`` alone would leave the clients of other regions open (``cache_regions=True``).
    """

    openers: ClassVar[tuple[str, ...]] = ("set_session", "_connect")

    def sessions(self) -> Iterable[Any]:
        creator = self._creator()
        regional = getattr(creator, "_buckets", {})
        clients = (getattr(self.filesystem, "_s3", None), getattr(creator, "_client", None), *regional.values())
        each_once = {id(client): client for client in clients if client is not None}
        for client in each_once.values():
            yield from (client._endpoint.http_session._sessions or {}).values()

    async def close(self) -> None:
        creator = self._creator()
        if creator is not None:
            await creator.__aexit__(None, None, None)
        await super().close()

    def _creator(self) -> Any:
        # The attribute is missing until the first request.
        return getattr(self.filesystem, "_s3creator", None)
