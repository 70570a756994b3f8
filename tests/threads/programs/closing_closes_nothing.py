"""The store is closed, by ``with`` and by ``close()``, and its session stays open."""

from __future__ import annotations

from typing import Any

import zarr
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import read

PLAIN = {
    "http": Symptom(leaves=1),
}


def plain(place: Place) -> Any:
    with FsspecStore.from_url(place.url, storage_options=place.options) as store:
        read(store)
    group = zarr.open_group(FsspecStore.from_url(place.url, storage_options=place.options), mode="r")
    group.store.close()
    return store, group


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
    group = zarr.open_group(ManagedStore(place.url, storage_options=place.options), mode="r")
    group.store.close()
    return store, group
