"""What a session holds: the filesystem that was built for it, and how that lets go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

from managed_store._building import Built
from managed_store._closers import closer_of

__all__ = ["Holding"]

# What was cut off needs a few turns of its loop until it is closed: the pauses, in seconds, before looking again.
_TURNS = (0.0, 0.0, 0.001, 0.01)


class Holding:
    """A filesystem with its closer.

    Parameters
    ----------
    built : Built
        The filesystem, and all that it stands on.
    refuse : callable
        What is called from now on where the filesystem would open something, once it is being closed.
    """

    def __init__(self, built: Built, refuse: Callable[..., NoReturn]) -> None:
        self._built = built
        self._refuse = refuse
        self._closer = closer_of(built.layer)
        self._is_sealed = False

    async def open(self) -> None:
        """Open what every request needs."""
        await self._closer.open()

    def notice(self) -> None:
        """Remember the connections that there are now."""
        self._closer.notice()

    async def close(self) -> None:
        """Close gracefully."""
        self._seal()
        await self._closer.close()

    def force(self) -> None:
        """Cut off what is open. From any thread, where the loop does not run."""
        try:
            self._seal()
        finally:
            self._closer.force()

    async def left_open(self) -> list[str]:
        """Name what is open, after the few turns of the loop that it has to close what was cut off."""
        for pause in _TURNS:
            if not self._closer.still_open():
                return []
            await asyncio.sleep(pause)
        return self._closer.still_open()

    def left_open_at_once(self) -> list[str]:
        """The same of a loop that does not run, after the moment that threads may take."""
        for pause in _TURNS:
            if not self._closer.still_open():
                return []
            time.sleep(pause)
        return self._closer.still_open()

    def close_copies(self) -> None:
        """In a forked child: close its copies of the parent's sockets."""
        self._closer.close_copies()

    def _seal(self) -> None:
        """Take over from the backend, once: nothing of it opens again, and none of its finalizers runs."""
        if not self._is_sealed:
            self._is_sealed = True
            self._built.retire_finalizers()
            self._closer.seal(self._refuse)
