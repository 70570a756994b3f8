"""zarr's own event loop: the only file that touches zarr's private event-loop API.

zarr's synchronous functions run their coroutines on one loop, in one daemon thread, which zarr starts on first use
and stops at interpreter exit (``zarr.core.sync.cleanup_resources``). There is no public name for it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

# Imported for its side effect too: zarr registers its exit hook on import, and hooks run last in, first out. Who
# imports this file before registering an exit hook of their own runs while zarr's loop is still alive.
from zarr.core.sync import sync

__all__ = ["run_on_zarr_loop"]

T = TypeVar("T")


def run_on_zarr_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on zarr's loop and wait for it. Not to be called on that loop itself."""
    return sync(coroutine)
