"""A group or an array of zarr has neither ``with`` nor ``close()``: who opened it by URL can end nothing."""

from __future__ import annotations

from typing import Any

import zarr

import managed_store
from tests.places import Place
from tests.threads.symptoms import Symptom

PLAIN = {
    "http": Symptom(leaves=1, error="context manager|__enter__"),
}


def plain(place: Place) -> Any:
    group: Any = zarr.open_group(place.url, storage_options=place.options, mode="r")
    group.members()
    with group:
        pass
    return group


def managed(place: Place) -> Any:
    with managed_store.open_group(place.url, storage_options=place.options, mode="r") as group:
        group.members()
    return group
