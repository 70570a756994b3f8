"""``asyncio.run`` twice: the second run is given the session of the first one's loop, which is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import zarr.api.asynchronous

from managed_store import ManagedStore
from tests.hierarchy import EXPECTED
from tests.places import Place
from tests.threads.symptoms import Symptom

PLAIN = {
    "http": Symptom(error="Event loop is closed"),
    "s3": Symptom(error="Event loop is closed"),
    "gs, plain class": Symptom(error="Event loop is closed"),
}


async def _read(where: Any, **options: Any) -> None:
    group = await zarr.api.asynchronous.open_group(where, mode="r", **options)
    array: Any = await group.getitem("numbers")
    np.testing.assert_array_equal(await array.getitem(...), EXPECTED)


def plain(place: Place) -> Any:
    for _ in range(2):
        asyncio.run(_read(place.url, storage_options=place.options))


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        for _ in range(2):
            asyncio.run(_read(store))
    return store
