"""The first requests come together, as zarr's do: each builds a client, and all but one are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import aiobotocore.session
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom

PLAIN = {
    "s3": Symptom(leaves=1, gone="a client for each request, since s3fs 2026.6.0"),
}


def _count_clients() -> list[Any]:
    made: list[Any] = []
    create = aiobotocore.session.AioSession.create_client

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        made.append(self)
        return create(self, *args, **options)

    aiobotocore.session.AioSession.create_client = counting
    return made


async def _four_at_once(store: Any) -> None:
    await asyncio.gather(*(store.get("zarr.json", default_buffer_prototype()) for _ in range(4)))


def plain(place: Place) -> Any:
    made = _count_clients()
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    asyncio.run(_four_at_once(store))
    assert len(made) == 1, f"{len(made)} clients were made"
    return store


def managed(place: Place) -> Any:
    made = _count_clients()

    async def main() -> Any:
        async with ManagedStore(place.url, storage_options=place.options) as store:
            await _four_at_once(store)
        return store

    store = asyncio.run(main())
    assert len(made) == 1, f"{len(made)} clients were made"
    return store
