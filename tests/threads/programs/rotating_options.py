"""A service whose credentials rotate: each set of options is a new filesystem in fsspec's cache, for good."""

from __future__ import annotations

from typing import Any

import zarr

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import ON_ANOTHER_THREAD, Symptom

ROTATIONS = 4
PLAIN = {
    "gs, plain class": Symptom(leaves=2 * ROTATIONS, says=ON_ANOTHER_THREAD),
    "s3": Symptom(leaves=2 * ROTATIONS),
}


def _rotated(place: Place, number: int) -> dict[str, Any]:
    option = "default_fill_cache" if place.url.startswith("s3") else "rotation"
    return {**place.options, option: number}


def plain(place: Place) -> Any:
    for number in range(ROTATIONS):
        zarr.open_group(place.url, storage_options=_rotated(place, number), mode="r").members()


def managed(place: Place) -> Any:
    for number in range(ROTATIONS):
        with ManagedStore(place.url, storage_options=_rotated(place, number)) as store:
            zarr.open_group(store, mode="r").members()
