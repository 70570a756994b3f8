"""One filesystem for direct use and for zarr: what zarr needs, an asynchronous one, has no synchronous methods."""

from __future__ import annotations

from typing import Any

import fsspec
import fsspec.asyn
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import read

STARTS_FSSPEC_LOOP = True
PLAIN = {
    "http": Symptom(leaves=1, error="Loop is not running"),
}


def plain(place: Place) -> Any:
    filesystem, path = fsspec.url_to_fs(place.url, asynchronous=True, **place.options)
    read(FsspecStore(filesystem, path=path))
    assert filesystem.info(f"{path}/zarr.json")["type"] == "file"
    return filesystem


def managed(place: Place) -> Any:
    filesystem, path = fsspec.url_to_fs(place.url, **place.options)
    with ManagedStore.from_filesystem(filesystem, path) as store:
        read(store)
    assert filesystem.info(f"{path}/zarr.json")["type"] == "file"
    fsspec.asyn.sync(filesystem.loop, filesystem._session.close)  # the user's own
    return filesystem, store
