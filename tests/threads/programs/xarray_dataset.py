"""`Dataset.close()` and `to_zarr` do not close the store."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import xarray as xr

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom

PLAIN = {
    "s3": Symptom(leaves=1),
}


def _somewhere(place: Place) -> tuple[xr.Dataset, str]:
    written = xr.Dataset({"numbers": (("y", "x"), np.arange(6).reshape(2, 3))})
    return written, place.url.replace("data.zarr", f"xarray-{uuid.uuid4().hex[:8]}.zarr")


def plain(place: Place) -> Any:
    written, url = _somewhere(place)
    written.to_zarr(url, storage_options=place.options, consolidated=False)
    with xr.open_zarr(url, storage_options=place.options, consolidated=False, chunks=None) as dataset:
        assert dataset.identical(written)
    return dataset


def managed(place: Place) -> Any:
    written, url = _somewhere(place)
    with ManagedStore(url, storage_options=place.options) as store:
        written.to_zarr(store, consolidated=False)
        with xr.open_zarr(store, consolidated=False, chunks=None) as dataset:
            assert dataset.identical(written)
    return dataset
