"""smbclient has one connection to a server for the whole process: stores that open and close at once share it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from zarr.core.buffer import default_buffer_prototype

from tests.footprint import NOTHING, Footprint
from tests.places import Places
from tests.test_nothing_left_open import place_for


def test_stores_that_open_and_close_on_many_loops_at_once_lose_no_connection(places: Places) -> None:
    place = place_for("smb", places)

    async def read_once() -> None:
        async with place.store() as store:
            assert await store.get("zarr.json", default_buffer_prototype()) is not None

    def read_often(thread: int) -> None:
        for _ in range(15):
            asyncio.run(read_once())

    before = Footprint.before()
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(read_often, range(6)))
    assert before.grown_by(Footprint.now()) == NOTHING
