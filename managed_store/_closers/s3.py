"""s3fs holds an aiobotocore client, or one client a region, made by a creator that also ends them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from managed_store._closers._aiohttp import AiohttpCloser

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["S3Closer"]


class S3Closer(AiohttpCloser):
    """Leaves ``fs._s3creator``, the context manager that holds every client of the filesystem.

    Closing ``fs._s3`` alone would leave the clients of other regions open (``cache_regions=True``). A creator that
    ``set_session(refresh=True)`` replaces is dropped by s3fs with its clients open, and so is remembered here.
    """

    openers: ClassVar[tuple[str, ...]] = ("set_session", "_connect")

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._creators: dict[int, Any] = {}
        connect = self.filesystem.set_session

        async def connect_and_remember(*args: Any, **kwargs: Any) -> Any:
            self._remember()
            try:
                return await connect(*args, **kwargs)
            finally:
                self._remember()

        for name in self.openers:
            setattr(self.filesystem, name, connect_and_remember)

    def sessions(self) -> Iterable[Any]:
        self._remember()
        clients: list[Any] = [getattr(self.filesystem, "_s3", None)]
        for creator in self._creators.values():
            clients += [getattr(creator, "_client", None), *getattr(creator, "_buckets", {}).values()]
        each_once = {id(client): client for client in clients if client is not None}
        for client in each_once.values():
            yield from (client._endpoint.http_session._sessions or {}).values()

    async def close(self) -> None:
        self._remember()
        for creator in self._creators.values():
            await creator.__aexit__(None, None, None)
        await super().close()

    def _remember(self) -> None:
        creator = getattr(self.filesystem, "_s3creator", None)  # missing until the first request
        if creator is not None:
            self._creators.setdefault(id(creator), creator)
