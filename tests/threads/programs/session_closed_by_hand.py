"""Each run closes its session by hand, as s3fs documents it; the cached filesystem keeps the closed one."""

from __future__ import annotations

import asyncio
from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import aread

PLAIN = {
    "s3": Symptom(gone="the second run is given the closed session, since s3fs 2026.2.0"),
}


def plain(place: Place) -> Any:
    async def main() -> None:
        store = FsspecStore.from_url(place.url, storage_options=place.options)
        session = await store.fs.set_session()
        await aread(store)
        await session.close()

    asyncio.run(main())
    asyncio.run(main())


def managed(place: Place) -> Any:
    async def main() -> None:
        async with ManagedStore(place.url, storage_options=place.options) as store:
            await aread(store)

    asyncio.run(main())
    asyncio.run(main())
