"""A service opens its store when it starts, answers on its own loop, and should let go when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.footprint import Footprint
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import aread

PLAIN = {
    "gs, plain class": Symptom(leaves=1, error="sockets are open when the service has stopped"),
    "s3": Symptom(leaves=1, error="sockets are open when the service has stopped"),
}


@asynccontextmanager
async def _plain_lifespan(place: Place) -> AsyncIterator[Any]:
    with FsspecStore.from_url(place.url, storage_options=place.options) as store:
        yield store


@asynccontextmanager
async def _managed_lifespan(place: Place) -> AsyncIterator[Any]:
    async with ManagedStore(place.url, storage_options=place.options) as store:
        yield store


async def _serve(lifespan: Any) -> None:
    before = Footprint.now()
    async with lifespan:
        pass
    left = before.grown_by(Footprint.now())
    assert not left["sockets"], f"{left['sockets']} sockets are open when the service has stopped"


async def _answer(lifespan: Any) -> None:
    async with lifespan as store:
        await asyncio.gather(*(aread(store) for _ in range(3)))


@asynccontextmanager
async def _answering(lifespan: Any) -> AsyncIterator[None]:
    await _answer(lifespan)
    yield


def plain(place: Place) -> Any:
    asyncio.run(_serve(_answering(_plain_lifespan(place))))


def managed(place: Place) -> Any:
    asyncio.run(_serve(_answering(_managed_lifespan(place))))
