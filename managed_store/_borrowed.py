"""Live objects that the user handed in, and the event loops that some of them are bound to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from managed_store._search import held_by
from managed_store.errors import StoreOpenError

__all__ = ["check_loops"]


def check_loops(name: str, value: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Check that nothing of the user's is bound to another event loop than `loop`, where it is to be used.

    Parameters
    ----------
    name : str
        What `value` is, for the message: ``"storage_options['http']"``.
    value : object
        A live object, or a mapping of options with live objects among them.
    loop : asyncio.AbstractEventLoop
        The loop that is to use it.

    Raises
    ------
    StoreOpenError
        Something is. A connector, say, belongs to the loop on which it was made.
    """
    for each_name, each in _live_objects(name, value):
        for bound in _loops_of(each):
            if bound is not loop:
                raise StoreOpenError(
                    f"{each_name} is a {type(each).__name__} that belongs to the event loop {bound!r}, so that the "
                    f"store can be used on that loop alone; this is {loop!r}. Use it there, through zarr's "
                    f"asynchronous API, or leave the option out: the store makes its own on each loop."
                )


def _live_objects(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _live_objects(f"{name}[{key!r}]", each)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield name, value


def _loops_of(value: Any) -> Iterator[asyncio.AbstractEventLoop]:
    if getattr(value, "asynchronous", None) is False:  # a filesystem that is called, on a loop of its own
        return
    import aiohttp  # not with this module: it is no part of importing managed_store

    for each in held_by([value], lambda held: isinstance(held, aiohttp.ClientSession | aiohttp.BaseConnector)):
        if (loop := getattr(each, "_loop", None)) is not None:
            yield loop
