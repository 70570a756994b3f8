"""zarr's documented way to release a filesystem, `clear_instance_cache`: the session is dropped, not closed."""

from __future__ import annotations

import gc
from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import COLLECTED_OPEN, Symptom
from tests.uses import read

PLAIN = {
    "http": Symptom(leaves=1, says=COLLECTED_OPEN),
    "s3": Symptom(leaves=1, says=COLLECTED_OPEN),
}


def plain(place: Place) -> Any:
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    read(store)
    store.close()
    type(store.fs).clear_instance_cache()
    del store
    gc.collect()


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
        type(store.fs).clear_instance_cache()  # it is in no cache
        read(store)
    del store
    gc.collect()
