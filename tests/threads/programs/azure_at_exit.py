"""A store on Azure is made, and the program ends: adlfs's finalizer can only raise."""

from __future__ import annotations

from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import read

STARTS_FSSPEC_LOOP = True
PLAIN = {
    "az": Symptom(leaves=1, says="RuntimeError: Loop is not running"),
}


def plain(place: Place) -> Any:
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    read(store)
    return store


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
    return store
