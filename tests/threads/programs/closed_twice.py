"""The client of an S3 filesystem is closed twice, by hand and by its owner."""

from __future__ import annotations

import asyncio
from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import aread

PLAIN = {
    "s3": Symptom(gone="the second close fails, since aiobotocore 3.10.0"),
}


def plain(place: Place) -> Any:
    async def main() -> Any:
        store = FsspecStore.from_url(place.url, storage_options=place.options)
        await aread(store)
        for _ in range(2):
            await store.fs._s3creator.__aexit__(None, None, None)
        return store

    return asyncio.run(main())


def managed(place: Place) -> Any:
    async def main() -> Any:
        async with ManagedStore(place.url, storage_options=place.options) as store:
            await aread(store)
            await store.aclose()
        await store.aclose()
        return store

    return asyncio.run(main())
