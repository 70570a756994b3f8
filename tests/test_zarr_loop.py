"""zarr's private event-loop API: these fail first when zarr changes it."""

from __future__ import annotations

import asyncio

import zarr.core.sync
from zarr.storage import FsspecStore

from managed_store import _zarr_loop, store


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_the_loop_is_the_one_of_zarrs_synchronous_api() -> None:
    """What we run on zarr's loop runs where zarr's own synchronous functions do."""
    loop = _zarr_loop.run_on_zarr_loop(running_loop())
    assert zarr.core.sync.sync(running_loop()) is loop
    assert loop.is_running()


def test_zarr_stops_its_loop_in_an_exit_hook() -> None:
    """zarr's exit hook exists: ours is registered after it, and so runs before it."""
    assert callable(zarr.core.sync.cleanup_resources)


def test_missing_keys_are_what_zarr_takes_for_missing() -> None:
    """The default of `allowed_exceptions` is that of the store that is wrapped."""
    defaults = FsspecStore.__init__.__defaults__
    assert defaults is not None
    assert store.ALLOWED_EXCEPTIONS in defaults
