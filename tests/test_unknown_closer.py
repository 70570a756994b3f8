"""The closer that guesses keeps the contract too, for filesystems of third parties that nobody registered one for."""

from __future__ import annotations

import asyncio
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import aiohttp
import fsspec
import pytest
import requests
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.http import HTTPFileSystem
from fsspec.spec import AbstractFileSystem

from managed_store._closers.unknown import UnknownCloser
from managed_store.testing import CloserContract
from tests.servers import FolderServer

KEY = "data.zarr/zarr.json"


class AiohttpService(AsyncFileSystem):  # type: ignore[misc]
    """An asynchronous filesystem with an aiohttp session in an attribute of its own."""

    protocol = "aiohttp-service"
    cachable = False

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(**options)
        self.url = url
        self.transport: dict[str, Any] = {}

    def set_session(self) -> aiohttp.ClientSession:
        """Named as that of other filesystems, which wait for it."""
        if "session" not in self.transport:
            self.transport["session"] = aiohttp.ClientSession()
        return self.transport["session"]  # type: ignore[no-any-return]

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        async with self.set_session().get(f"{self.url}/{path}") as response:
            return bytes(await response.read())


class RequestsService(AbstractFileSystem):  # type: ignore[misc]
    """A synchronous filesystem with a session of the package requests."""

    protocol = "requests-service"
    cachable = False

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(**options)
        self.url = url
        self.client = requests.Session()

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        return self.client.get(f"{self.url}/{path}", timeout=10).content


class SocketService(AbstractFileSystem):  # type: ignore[misc]
    """A synchronous filesystem with a bare socket, which threads of its own read from."""

    protocol = "socket-service"
    cachable = False

    def __init__(self, port: int, **options: Any) -> None:
        super().__init__(**options)
        self.port = port
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="socket service")
        self.line: socket.socket | None = None

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        if self.line is None:
            self.line = socket.create_connection(("127.0.0.1", self.port))
        self.line.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return self.executor.submit(self.line.recv, 65536).result(10)


class WrapperService(AsyncFileSystem):  # type: ignore[misc]
    """A filesystem around another one of fsspec's, which it makes itself."""

    protocol = "wrapper-service"
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = HTTPFileSystem(asynchronous=self.asynchronous, skip_instance_cache=True)

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        return bytes(await self.inner._cat_file(path, start, end))


class UnknownContract(CloserContract):
    """The contract, but for sealing: nobody knows how these open what they open."""

    closer_class = UnknownCloser
    seals: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _server(self, http: FolderServer, caplog: pytest.LogCaptureFixture) -> Any:
        caplog.set_level(logging.DEBUG, logger="managed_store")
        self.server = http
        self.log = caplog
        opened = http.connections()
        yield
        assert http.wait_for_connections(opened) <= opened

    async def use(self, filesystem: Any) -> None:
        assert b"zarr_format" in await asyncio.to_thread(filesystem.cat_file, KEY)

    def logged(self) -> list[str]:
        return [record.getMessage() for record in self.log.records if record.name == "managed_store"]

    def check_log(self, found: str) -> None:
        filesystem, closer = self.make_filesystem(), None
        closer = self.make_closer(filesystem)

        async def life() -> None:
            await self.use(filesystem)
            closer.seal(lambda *args, **kwargs: pytest.fail("opened"))
            await closer.close()

        asyncio.run(life())
        (line,) = self.logged()
        cls = type(filesystem)
        assert line.startswith(f"No closer is known for {cls.__module__}.{cls.__qualname__}: closing {found}.")
        assert "managed_store.register_closer" in line
        assert all(record.levelno == logging.DEBUG for record in self.log.records if record.name == "managed_store")


class TestAiohttpService(UnknownContract):
    """A session that nobody told this package of."""

    def make_filesystem(self) -> Any:
        return AiohttpService(self.server.url, asynchronous=True, skip_instance_cache=True)

    async def use(self, filesystem: Any) -> None:
        assert b"zarr_format" in await filesystem._cat_file(KEY)

    def test_the_log(self) -> None:
        """What is closed is said at DEBUG, and how to do better."""
        self.check_log("ClientSession")


class TestRequestsService(UnknownContract):
    """Connections that requests keeps alive."""

    def make_filesystem(self) -> Any:
        return RequestsService(self.server.url, skip_instance_cache=True)

    def test_the_log(self) -> None:
        """What is closed is said at DEBUG, and how to do better."""
        self.check_log("Session")


class TestSocketService(UnknownContract):
    """A socket, and the threads of an executor."""

    def make_filesystem(self) -> Any:
        return SocketService(self.server.port, skip_instance_cache=True)

    def test_the_log(self) -> None:
        """What is closed is said at DEBUG, and how to do better."""
        self.check_log("ThreadPoolExecutor, socket")


class TestWrapperService(UnknownContract):
    """What a filesystem of its own holds is closed by that one's closer."""

    def make_filesystem(self) -> Any:
        return WrapperService(asynchronous=True, skip_instance_cache=True)

    async def use(self, filesystem: Any) -> None:
        assert b"zarr_format" in await filesystem._cat_file(f"{self.server.url}/{KEY}")

    def test_the_log(self) -> None:
        """The inner filesystem has a closer of its own, and is not taken for something to close."""
        self.check_log("nothing that was found")

    def test_a_shared_filesystem_is_nobodys_to_close(self) -> None:
        """One that comes from fsspec's cache is used by others too."""

        async def life() -> None:
            outer = self.make_filesystem()
            outer.inner = shared = fsspec.filesystem("http", asynchronous=True)
            await self.use(outer)
            closer = self.make_closer(outer)
            closer.seal(lambda *args, **kwargs: pytest.fail("opened"))
            await closer.close()
            closer.force()
            assert not shared._session.closed
            await self.use(outer)
            await shared._session.close()

        try:
            asyncio.run(life())
        finally:
            HTTPFileSystem.clear_instance_cache()


def test_what_the_user_gave_is_not_closed(http: FolderServer) -> None:
    """An option is borrowed, whatever it is held by."""
    theirs = requests.Session()

    class Given(RequestsService):
        def __init__(self, url: str, session: Any, **options: Any) -> None:
            super().__init__(url, **options)
            self.client = session

    filesystem = Given(http.url, session=theirs, skip_instance_cache=True)
    closer = UnknownCloser(filesystem)
    assert b"zarr_format" in filesystem.cat_file(KEY)
    asyncio.run(closer.close())
    closer.force()
    assert closer.still_open() == []
    pools = theirs.get_adapter(http.url).poolmanager.pools  # type: ignore[attr-defined]
    assert len(pools) == 1
    assert http.connections() >= 1
    assert b"zarr_format" in filesystem.cat_file(KEY)
    from managed_store._closers.requests import close_session

    close_session(theirs)
