"""Threads read the same URL at the same time: fsspec makes a filesystem, with a session, for each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import zarr
from zarr.storage import FsspecStore

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom

THREADS = 6
PLAIN = {
    "http": Symptom(leaves=2 * THREADS),
}


def _in_threads(function: Callable[[], None]) -> None:
    failures: list[BaseException] = []
    all_there = threading.Barrier(THREADS)

    def work() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)
        all_there.wait(10)  # the number of a thread that has ended is given to another one

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def plain(place: Place) -> Any:
    def work() -> None:
        store = FsspecStore.from_url(place.url, storage_options=place.options)
        zarr.open_group(store, mode="r")["numbers"][:]

    _in_threads(work)


def managed(place: Place) -> Any:
    with ManagedStore(place.url, storage_options=place.options) as store:

        def work() -> None:
            zarr.open_group(store, mode="r")["numbers"][:]

        _in_threads(work)
    return store
