"""A program opens a group, lists its members, and ends: nobody closes the session."""

from __future__ import annotations

from typing import Any

import zarr

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import ON_ANOTHER_THREAD, Symptom

PLAIN = {
    "gs, plain class": Symptom(leaves=1, says=ON_ANOTHER_THREAD),
    "http": Symptom(leaves=1, gone="`Unclosed client session` at exit, since fsspec 2025.3.1"),
    "s3": Symptom(leaves=1),
}


def plain(place: Place) -> Any:
    group = zarr.open_group(place.url, storage_options=place.options, mode="r")
    group.members()
    return group


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        group = zarr.open_group(store, mode="r")
        group.members()
    return group
