"""The program uses fsspec itself, and zarr too: gcsfs's finalizer closes zarr's session on fsspec's loop.

The managed form closes the user's own session too, on its loop: that one is not the store's to close.
"""

from __future__ import annotations

from typing import Any

import fsspec
import fsspec.asyn
import zarr

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import ON_ANOTHER_THREAD, Symptom

STARTS_FSSPEC_LOOP = True
PLAIN = {
    "gs, plain class": Symptom(leaves=1, says=ON_ANOTHER_THREAD),
}


def _use_fsspec(place: Place) -> Any:
    filesystem, path = fsspec.url_to_fs(place.url, **place.options)
    assert filesystem.info(f"{path}/zarr.json")["type"] == "file"
    return filesystem


def plain(place: Place) -> Any:
    filesystem = _use_fsspec(place)
    group = zarr.open_group(place.url, storage_options=place.options, mode="r")
    group.members()
    return filesystem, group


def managed(place: Place) -> Any:
    filesystem = _use_fsspec(place)
    with ManagedStore(place.url, storage_options=place.options) as store:
        group = zarr.open_group(store, mode="r")
        group.members()
    fsspec.asyn.sync(filesystem.loop, filesystem.session.close)
    return filesystem, group
