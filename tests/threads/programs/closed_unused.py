"""An application closes at shutdown what it may never have used: there is no session to close yet."""

from __future__ import annotations

import asyncio
from typing import Any

import fsspec

from managed_store import ManagedStore
from tests.places import Place
from tests.threads.symptoms import Symptom

PLAIN = {
    "gs, plain class": Symptom(error="Please await _connect"),
}


def plain(place: Place) -> Any:
    async def shut_down() -> None:
        filesystem, _ = fsspec.url_to_fs(place.url, asynchronous=True, **place.options)
        await filesystem.session.close()

    asyncio.run(shut_down())


def managed(place: Place) -> Any:
    async def shut_down() -> None:
        store = ManagedStore(place.url, storage_options=place.options)
        await store.aclose()

    asyncio.run(shut_down())
