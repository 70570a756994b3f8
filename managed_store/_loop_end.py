"""The end of an event loop, at which what lives on it must end too: the one moment when that can still be awaited."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from managed_store._awaiting import run_to_first_pause

__all__ = ["EndOfLoop", "is_ending"]

# Loops that are shutting down their async generators: what was opened there now could not end with its loop.
_ending_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def is_ending(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop has begun to end what lives on it."""
    return loop in _ending_loops


class EndOfLoop:
    """Awaits something when a loop shuts down its async generators, as `asyncio.run` does before it closes the loop.

    Public API, the right loop, and the right moment: the loop's tasks are done and it still runs. It is reliable only
    while something refers to it.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        The loop.
    step : callable
        What is called on the loop then, and awaited.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, step: Callable[[], Awaitable[None]]) -> None:
        self._loop = loop
        self._step: Callable[[], Awaitable[None]] | None = step
        self._generator: Any = self._wait()  # `ag_running` is missing from typeshed's AsyncGenerator

    def watch(self) -> None:
        """Begin to wait for it, on the loop's own thread."""
        run_to_first_pause(self._generator.__anext__())

    def forget(self) -> None:
        """Wait no more. From any thread, and from within the step."""
        self._step = None
        if not self._generator.ag_running:
            run_to_first_pause(self._generator.aclose())

    async def _wait(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._step is not None:
                _ending_loops.add(self._loop)
                await self._step()
