"""Reading over fsspec's HTTP filesystem, which the store does by itself, through the session that fsspec opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import pytest
from fsspec.implementations.http import HTTPFileSystem
from zarr.abc.store import OffsetByteRequest, RangeByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype

from managed_store import ManagedStore
from tests.servers import FolderServer, http_server
from tests.tiny_server import Answer, tiny_server

PROTOTYPE = default_buffer_prototype()
PAST_THE_END = (OffsetByteRequest(100), RangeByteRequest(100, 200))


@pytest.fixture
def server() -> Iterator[FolderServer]:
    with http_server() as running:
        (running.root / "key").write_bytes(b"hello")
        yield running


async def test_options_that_say_nothing(server: FolderServer) -> None:
    """No headers are said as None too, by those who pass on what they were given."""
    async with ManagedStore(server.url, storage_options={"headers": None}) as store:
        assert await store.get("missing", PROTOTYPE, OffsetByteRequest(1)) is None
        value = await store.get("key", PROTOTYPE, OffsetByteRequest(1))
        assert value is not None
        assert value.to_bytes() == b"ello"
        await store.set("key", cpu.Buffer.from_bytes(b"written"))
    assert (server.root / "key").read_bytes() == b"written"


async def test_token_in_the_query_string(server: FolderServer) -> None:
    """It goes into each request by an option: in the URL it would stand before the keys."""
    asked: list[str] = []

    def respond(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        asked.append(f"{method} {path}")
        return Answer(404)

    with tiny_server(respond) as url:
        async with ManagedStore(f"{url}/a.zarr", storage_options={"params": {"token": "a/b+c="}}) as store:
            assert await store.get("key", PROTOTYPE) is None
            assert not await store.exists("key")
    assert asked == [f"{method} /a.zarr/key?token=a/b%2Bc%3D" for method in ("GET", "HEAD", "GET")]


async def test_session_that_raises_of_itself(server: FolderServer) -> None:
    """A client of the user's may be set to raise for each status: what that means stays the same."""

    async def strict(**options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(raise_for_status=True, **options)

    async with ManagedStore(server.url, storage_options={"get_client": strict}) as store:
        assert await store.get("missing", PROTOTYPE) is None
        assert await store.get("missing", PROTOTYPE, OffsetByteRequest(1)) is None
        for part in PAST_THE_END:
            value = await store.get("key", PROTOTYPE, part)
            assert value is not None
            assert value.to_bytes() == b""


async def test_missing_key_that_is_not_allowed(server: FolderServer) -> None:
    """Whoever allows no exceptions gets the one that fsspec raises."""
    async with ManagedStore(server.url, allowed_exceptions=()) as store:
        for part in (None, OffsetByteRequest(1)):
            with pytest.raises(FileNotFoundError, match="/missing"):
                await store.get("missing", PROTOTYPE, part)


class UpperCase(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reads in its own way."""

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        data: bytes = await super()._cat_file(url, start, end, **kwargs)
        return data.upper()


async def test_subclass_that_reads_in_its_own_way(server: FolderServer) -> None:
    """It is asked to, for the whole and for a part."""
    async with ManagedStore.from_filesystem(UpperCase(skip_instance_cache=True), server.url) as store:
        whole = await store.get("key", PROTOTYPE)
        part = await store.get("key", PROTOTYPE, OffsetByteRequest(3))
    assert whole is not None
    assert part is not None
    assert (whole.to_bytes(), part.to_bytes()) == (b"HELLO", b"LO")
