"""Event loops that a test drives by hand, each in another way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from zarr.core.sync import sync

__all__ = ["DrivenLoop", "PausedLoop", "ThreadLoop", "ZarrLoop"]

T = TypeVar("T")


class DrivenLoop(Protocol):
    """An event loop on which a test runs one coroutine after the other."""

    runs_on: bool
    """Whether it runs between two coroutines too, so that it can be asked to close a session."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""

    def end(self, *, properly: bool) -> None:
        """Close the loop; improperly: without shutting down its async generators."""


class PausedLoop:
    """Runs on the test's own thread, and only while it has a coroutine to run: a `Runner`, or a fixture's loop."""

    runs_on = False

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(_with_a_turn_more(coroutine))

    def end(self, *, properly: bool) -> None:
        if properly:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class ThreadLoop:
    """Runs in a thread of its own until it is ended."""

    runs_on = True

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._properly = True
        self._thread = threading.Thread(target=self._run, name="a loop of a test", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        if self._properly:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(_with_a_turn_more(coroutine), self._loop).result()

    def end(self, *, properly: bool) -> None:
        self._properly = properly
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class ZarrLoop:
    """zarr's own loop, which nobody ends."""

    runs_on = True

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return sync(coroutine)

    def end(self, *, properly: bool) -> None:
        raise NotImplementedError


async def _with_a_turn_more(coroutine: Coroutine[Any, Any, T]) -> T:
    """Let aiohttp close the connection of an answer that was not read to its end, which takes it another turn.

    Closed before, without its generators, the loop would leave that socket to the garbage collector.
    """
    try:
        return await coroutine
    finally:
        await asyncio.sleep(0)
