"""Live objects that the user handed in, and the event loops that some of them are bound to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from managed_store._search import held_by
from managed_store.errors import StoreOpenError

__all__ = ["check_loops"]


def check_loops(options: Mapping[str, Any], loop: asyncio.AbstractEventLoop, url: str) -> None:
    """Check that nothing among the options is bound to another event loop than `loop`, where it is to be used.

    Raises
    ------
    StoreOpenError
        Something is. A connector, say, belongs to the loop on which it was made.
    """
    for name, value in _live_objects(options, "storage_options"):
        for bound in _loops_of(value):
            if bound is not loop:
                raise StoreOpenError(
                    f"{name} is a {type(value).__name__} that belongs to the event loop {bound!r}, so that the store "
                    f"{url!r} can be used on that loop alone; this is {loop!r}. Use the store there, through zarr's "
                    f"asynchronous API, or leave the option out: the store makes its own on each loop."
                )


def _live_objects(options: Mapping[Any, Any], name: str) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _live_objects(value, f"{name}[{key!r}]")
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            yield f"{name}[{key!r}]", value


def _loops_of(value: Any) -> Iterator[asyncio.AbstractEventLoop]:
    if getattr(value, "asynchronous", None) is False:  # a filesystem that is called, on a loop of its own
        return
    import aiohttp  # not with this module: it is no part of importing managed_store

    for each in held_by([value], lambda held: isinstance(held, aiohttp.ClientSession | aiohttp.BaseConnector)):
        if (loop := getattr(each, "_loop", None)) is not None:
            yield loop
