"""Leaving a `with` or `async with` block by closing what it is about."""

from __future__ import annotations

import asyncio
from types import TracebackType

from managed_store._lifecycle import Drain
from managed_store._notes import note_on

__all__ = ["Closable"]


class Closable:
    """What is closed when its block is left; the exception of the body always wins."""

    def _close(self, drain: Drain) -> None:
        """Close, and wait for that."""
        raise NotImplementedError

    async def _aclose(self, drain: Drain) -> None:
        """Close, and wait for that without blocking the running loop."""
        raise NotImplementedError

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close. The exception of the body always wins: a failure to close is noted on it."""
        try:
            self._close(Drain.ALL if exc_value is None else Drain.WRITES)
        except Exception as error:
            if exc_value is None:
                raise
            note_on(exc_value, f"While leaving the block: {error}")

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close. The exception of the body always wins: a failure to close is noted on it."""
        try:
            await self._aclose(Drain.ALL if exc_value is None else Drain.WRITES)
        except asyncio.CancelledError:
            if exc_value is None:
                raise
            note_on(exc_value, "While leaving the block, its task was cancelled.")
        except Exception as error:
            if exc_value is None:
                raise
            note_on(exc_value, f"While leaving the block: {error}")
