"""s3fs holds an aiobotocore client, or one client a region, made by a creator that also ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from managed_store._closers._aiohttp import AiohttpCloser

if TYPE_CHECKING:
    import aiohttp
    from fsspec.spec import AbstractFileSystem

__all__ = ["S3Closer"]


class S3Closer(AiohttpCloser):
    """Leaves ``fs._s3creator``, the context manager that holds every client of the filesystem.

    Closing ``fs._s3`` alone would leave the clients of other regions open (``cache_regions=True``). A creator that
    ``set_session(refresh=True)`` replaces is dropped by s3fs with its clients open, and so is remembered here.
    """

    openers: ClassVar[tuple[str, ...]] = ("set_session", "_connect")

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        self._creators: dict[int, Any] = {}
        super().__init__(filesystem)

    def _notice_from_birth(self) -> None:
        connect = self.filesystem.set_session

        async def connect_and_remember(*args: Any, **kwargs: Any) -> Any:
            self._remember()
            try:
                return await connect(*args, **kwargs)
            finally:
                self._remember()

        for name in self.openers:
            setattr(self.filesystem, name, connect_and_remember)

    def sessions(self) -> Iterator[aiohttp.ClientSession]:
        for http_session in self._http_sessions():
            yield from (http_session._sessions or {}).values()

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        super().seal(refuse)
        for http_session in self._http_sessions():
            http_session._get_session = refuse

    async def close(self) -> None:
        self._remember()
        for creator in self._creators.values():
            await creator.__aexit__(None, None, None)
        await super().close()

    def _http_sessions(self) -> Iterator[Any]:
        """Those of aiobotocore, one for each client; each holds an aiohttp session for each proxy."""
        self._remember()
        clients: list[Any] = [getattr(self.filesystem, "_s3", None)]
        for creator in self._creators.values():
            clients += [getattr(creator, "_client", None), *getattr(creator, "_buckets", {}).values()]
        each_once = {id(client): client for client in clients if client is not None}
        for client in each_once.values():
            yield client._endpoint.http_session

    def _remember(self) -> None:
        creator = getattr(self.filesystem, "_s3creator", None)  # missing until the first request
        if creator is not None and id(creator) not in self._creators:
            self._creators[id(creator)] = creator
            if hasattr(creator, "get_bucket_client"):
                self._follow_regions(creator)
        client = getattr(self.filesystem, "_s3", None)
        if client is not None:
            self._follow(client)

    def _follow_regions(self, creator: Any) -> None:
        """Follow also the clients that a creator makes for the regions of buckets."""
        get = creator.get_bucket_client

        async def get_and_follow(*args: Any, **kwargs: Any) -> Any:
            client = await get(*args, **kwargs)
            self._follow(client)
            return client

        creator.get_bucket_client = get_and_follow

    def _follow(self, client: Any) -> None:
        """Have the sessions of a client noticed: each is opened with the first request that needs it."""
        http_session = client._endpoint.http_session
        if "_get_session" not in vars(http_session):
            self._notice_what_is_opened_by(http_session, "_get_session", once=False)
