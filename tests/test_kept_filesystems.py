"""A filesystem that the user has taken from a store, and goes on to use: after closing it opens nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.conftest import Place
from tests.servers import FolderServer, S3Server, fault_proxy
from tests.test_closers import finalizers

PROTOTYPE = default_buffer_prototype()


def test_every_opener_is_sealed(s3: S3Server) -> None:
    """s3fs opens under a second name; neither opens anything after the store is closed."""
    with ManagedStore("s3://bucket/data.zarr", storage_options=s3.storage_options) as store:
        sync(store.exists("zarr.json"))
        filesystem: Any = store.fs
    opened = s3.opened()

    async def connect(name: str) -> None:
        with pytest.raises(StoreClosedError):
            await getattr(filesystem, name)()

    for name in ("set_session", "_connect"):
        sync(connect(name))
    assert s3.opened() == opened


@pytest.mark.parametrize("backend", ["http", "gs", "s3"])
@pytest.mark.parametrize("how", ["close", "aclose", "with on the own loop"])
async def test_after_every_way_of_closing(backend: str, how: str, place: Place, request: pytest.FixtureRequest) -> None:
    """After closing, requests through `store.fs` raise StoreClosedError, and the server sees no connection."""
    server = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
    store = ManagedStore(place.url, storage_options=place.options)
    await store.get("zarr.json", PROTOTYPE)
    filesystem: Any = store.fs
    root = store.path
    match how:
        case "close":
            await asyncio.to_thread(store.close)
        case "aclose":
            await store.aclose()
        case _:
            store.close()
            await asyncio.sleep(0.05)
    opened = server.opened()
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: filesystem._cat_file(f"{root}/zarr.json"),
        lambda: filesystem._info(f"{root}/zarr.json"),
        lambda: filesystem._exists(f"{root}/zarr.json"),
        lambda: filesystem._ls(root),
        lambda: filesystem._find(root),
    ]
    for call in calls:
        with pytest.raises(StoreClosedError):
            await call()
    assert server.opened() == opened
    assert finalizers(filesystem) == []


async def test_request_in_flight_is_not_made_again(http: FolderServer) -> None:
    """aiohttp asks once more where a connection breaks that was used before; closing has broken this one."""
    with fault_proxy(http.port) as proxy:
        async with ManagedStore(f"{proxy.url}/data.zarr") as store:
            filesystem: Any = store.fs
            url = f"{store.path}/zarr.json"
            await filesystem._cat_file(url)
            proxy.show("hang")
            asking = asyncio.create_task(filesystem._cat_file(url))
            await asyncio.sleep(0.1)
        with pytest.raises((StoreClosedError, aiohttp.ServerDisconnectedError)):  # an old aiohttp does not ask again
            await asking
        assert proxy.opened() == 1
