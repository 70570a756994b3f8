"""Two stores with the same options share one filesystem: whoever closes the session of one cuts off the other."""

from __future__ import annotations

from typing import Any

from zarr.core.sync import sync
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom
from tests.uses import read

PLAIN = {
    "http": Symptom(error="Session is closed"),
    "gs, plain class": Symptom(error="Session is closed"),
    "s3": Symptom(leaves=1, gone="on S3 the sibling fails, since s3fs 2026.2.0"),
}


def plain(place: Place) -> Any:
    one, other = (FsspecStore.from_url(place.url, storage_options=place.options) for _ in range(2))
    read(one)
    sync((one.fs._s3 if hasattr(one.fs, "_s3") else one.fs._session).close())
    read(other)
    return one, other


def managed(place: Place) -> Any:
    one, other = (ManagedStore(place.url, storage_options=place.options) for _ in range(2))
    read(one)
    read(other)
    one.close()
    read(other)
    other.close()
    return one, other
