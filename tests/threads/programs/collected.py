"""A private filesystem goes out of scope and is collected: its finalizer, if it has one, runs on the wrong thread."""

from __future__ import annotations

import gc
from typing import Any

import fsspec
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import COLLECTED_OPEN, ON_ANOTHER_THREAD, Symptom
from tests.uses import read

PLAIN = {
    "gs, plain class": Symptom(leaves=1, says=ON_ANOTHER_THREAD),
    "http": Symptom(leaves=1, says=COLLECTED_OPEN),
    "s3": Symptom(leaves=1, says=COLLECTED_OPEN),
}


def plain(place: Place) -> Any:
    filesystem, path = fsspec.url_to_fs(place.url, asynchronous=True, skip_instance_cache=True, **place.options)
    read(FsspecStore(filesystem, path=path))
    del filesystem
    gc.collect()


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
    del store
    gc.collect()
