"""Every closer of this package keeps the contract for closers, on real servers, alone and in chains."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from fsspec.implementations.http import HTTPFileSystem
from gcsfs.core import GCSFileSystem
from s3fs import S3FileSystem
from zarr.core.sync import sync

from managed_store._building import Built, build
from managed_store._closers import Closer, closer_of
from managed_store._recipe import Recipe
from managed_store.testing import CloserContract, Leak
from tests.every_backend import CONTENTS, Everything, backends, everything

__all__ = ["everything"]  # the fixture

KEY = "folder/small"


@functools.cache
def keep_a_channel() -> Any:
    """Keep gRPC's poller, a thread of the whole process that ends with the last channel, out of the figures."""
    import grpc

    async def channel() -> Any:
        return grpc.aio.insecure_channel("127.0.0.1:1")

    return sync(channel())


def is_kept(leak: Leak) -> bool:
    return any("keep_a_channel" in frame.function for frame in leak.stack)


@pytest.mark.leaks(allow=is_kept)
class ContractOnServers(CloserContract):
    """The contract for one backend, which a fixture chooses."""

    @pytest.fixture(autouse=True)
    def _prepare(self, everything: Everything, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        name = backend.partition(" ")[0]
        self.place = everything.filled(name)
        self.backend = backend
        self.monkeypatch = monkeypatch
        if name == "gs":
            keep_a_channel()
        server = None if "::" in name else everything.server(name)
        opened = 0 if server is None else server.connections()
        yield
        if server is not None and backend != "gs extended":  # which gRPC goes on trying to connect to
            assert server.wait_for_connections(opened) <= opened  # less, if one of others was just closing

    def open_sockets(self) -> int:
        if self.backend.startswith("gs"):  # a failed call lives in a reference cycle, and goes on trying to connect
            gc.collect()
        return super().open_sockets()


class TestAsynchronous(ContractOnServers):
    """The filesystems that are awaited."""

    only_by_awaiting = ("storage-control channel", "gRPC client")  # gRPC cannot be touched while its loop does not run
    pytestmark = backends("http", "https", "gs core", "gs extended", "s3", "s3 with regions", "az")

    def make_filesystem(self) -> Any:
        options = dict(self.place.options)
        cls: Any = {"http": HTTPFileSystem, "https": HTTPFileSystem, "gs core": GCSFileSystem}.get(self.backend)
        if self.backend == "gs extended":
            cls = pytest.importorskip("gcsfs.extended_gcsfs").ExtendedGcsFileSystem
        elif self.backend == "az":
            cls = pytest.importorskip("adlfs").AzureBlobFileSystem
        elif self.backend == "s3":
            cls = S3FileSystem
        elif self.backend == "s3 with regions":  # s3fs caches no regions where the options name an endpoint
            self.monkeypatch.setenv("AWS_ENDPOINT_URL", options.pop("endpoint_url"))
            cls = functools.partial(S3FileSystem, cache_regions=True)
        return cls(asynchronous=True, skip_instance_cache=True, **options)

    async def use(self, filesystem: Any) -> None:
        path = filesystem._strip_protocol(f"{self.place.url}/{KEY}")
        assert await filesystem._cat_file(path) == CONTENTS[KEY]


class TestSynchronous(ContractOnServers):
    """The filesystems that block; not smb, whose connection is the process's: it is tried below, as a store has it."""

    pytestmark = backends("ftp", "sftp", "webdav", "webhdfs")

    def make_filesystem(self) -> Any:
        import fsspec

        return fsspec.get_filesystem_class(self.backend)(skip_instance_cache=True, **self.place.options)

    async def use(self, filesystem: Any) -> None:
        path = filesystem._strip_protocol(f"{self.place.url}/{KEY}")
        assert await asyncio.to_thread(filesystem.cat_file, path) == CONTENTS[KEY]


CHAINS = (
    *("dir::http", "dir::s3", "simplecache::http", "simplecache::s3", "blockcache::http", "filecache::http"),
    *("simplecache::ftp", "zip::http", "tar::http", "tar.gz::http", "zip::simplecache::http"),
    *("reference::http", "reference::simplecache::http"),
)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # fsspec's cache of blocks drops the file it maps
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
class TestBuilt(ContractOnServers):
    """What a store builds of a URL, and closes as one: threads around what blocks, and chains."""

    pytestmark = backends("http", "ftp", "sftp", "webdav", "webhdfs", "smb", *CHAINS)

    @pytest.fixture(autouse=True)
    def _remember(self) -> None:
        self.built: dict[int, Built] = {}

    def make_filesystem(self) -> Any:
        built = build(Recipe.checked(self.place.url, self.place.options), asyncio.get_running_loop())
        self.built[id(built.filesystem)] = built
        return built.filesystem

    def make_closer(self, filesystem: Any) -> Closer:
        return closer_of(self.built[id(filesystem)].layer)

    def filesystems(self, filesystem: Any) -> list[Any]:
        return list(self.built[id(filesystem)].layer.filesystems())

    async def use(self, filesystem: Any) -> None:
        path = self.built[id(filesystem)].path
        assert await filesystem._cat_file(f"{path}/{KEY}".lstrip("/" if "::" in self.backend else "")) == CONTENTS[KEY]
