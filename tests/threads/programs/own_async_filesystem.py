"""The user makes the asynchronous filesystem and gives it to the store: whose is the session now?"""

from __future__ import annotations

from typing import Any

import fsspec
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import read

PLAIN = {
    "s3": Symptom(leaves=1, gone="`Unclosed client session` at exit, since fsspec 2025.3.1"),
}


def _filesystem(place: Place) -> tuple[Any, str]:
    filesystem, path = fsspec.url_to_fs(place.url, asynchronous=True, **place.options)
    return filesystem, path


def plain(place: Place) -> Any:
    filesystem, path = _filesystem(place)
    store = FsspecStore(filesystem, path=path)
    read(store)
    return store


def managed(place: Place) -> Any:
    filesystem, path = _filesystem(place)  # opens nothing yet, and never does: the store works with a private twin
    with ManagedStore.from_filesystem(filesystem, path) as store:
        read(store)
    return filesystem, store
