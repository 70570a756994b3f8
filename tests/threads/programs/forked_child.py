"""A process forks after its first read: the child inherits a session whose loop does not run there."""

from __future__ import annotations

import os
import traceback
import warnings
from typing import Any

from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import ANOTHER_LOOP, Symptom
from tests.uses import read

PLAIN = {
    "http": Symptom(error=ANOTHER_LOOP),
    "s3": Symptom(error="in the child"),
    "gs, plain class": Symptom(error=ANOTHER_LOOP),
}


def _in_forked_child(store: Any) -> None:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads, zarr's among them; that is what is tried here.
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            read(store)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    if said:
        raise RuntimeError(f"in the child: {said.strip().splitlines()[-1]}")


def plain(place: Place) -> Any:
    store = FsspecStore.from_url(place.url, storage_options=place.options)
    read(store)
    _in_forked_child(store)
    return store


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
        _in_forked_child(store)
        read(store)
    return store
