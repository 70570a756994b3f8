"""A chained URL: the outer filesystem is asynchronous, the inner one is not, and fsspec refuses the pair."""

from __future__ import annotations

from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import ANOTHER_LOOP, Symptom
from tests.uses import read

STARTS_FSSPEC_LOOP = True
PLAIN = {
    "reference, JSON over http": Symptom(error="must have same value of asynchronous"),
    "simplecache::http": Symptom(error=ANOTHER_LOOP),
}


def plain(place: Place) -> Any:
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    read(store)
    return store


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
    return store
