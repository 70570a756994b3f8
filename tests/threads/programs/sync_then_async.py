"""A store is opened through the synchronous API, as in a notebook's first cell, and then awaited on the user's loop."""

from __future__ import annotations

import asyncio
from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import ANOTHER_LOOP, Symptom
from tests.uses import aread, read

PLAIN = {
    "http": Symptom(error=ANOTHER_LOOP),
    "gs, plain class": Symptom(error=ANOTHER_LOOP),
}


def plain(place: Place) -> Any:
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    read(store)
    asyncio.run(aread(store))
    return store


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
        asyncio.run(aread(store))
    return store
