"""A store that was closed answers all the same: it opens itself again, without a word."""

from __future__ import annotations

from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore, StoreClosedError
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import read

PLAIN = {
    "http": Symptom(leaves=1),
}


def _read_after_close(store: Any) -> None:
    read(store)
    store.close()
    assert sync(store.get("zarr.json", default_buffer_prototype())) is not None


def plain(place: Place) -> Any:
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    _read_after_close(store)
    return store


def managed(place: Place) -> Any:
    store = ManagedStore(place.url, storage_options=place.options)
    try:
        _read_after_close(store)
    except StoreClosedError:
        return store
    raise AssertionError("it answered")
