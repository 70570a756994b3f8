"""The steps that a store takes with a filesystem and its closer, one by one, and what the process holds meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from managed_store._closers import Closer, closer_for, retire_finalizers, retire_own_finalizers
from managed_store.testing._observing import connected_sockets

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["SealedError", "StepsOfAStore", "ask", "in_time", "on_a_loop", "was_refused"]

# Seconds that one step may take before it counts as one that hangs, and for a loop to close what was cut off.
_PATIENCE, _TURNS = 10.0, 1.0

# Threads that belong to others: the default executors of event loops, fsspec's own loop and zarr's.
_THREADS_OF_OTHERS = ("asyncio_", "fsspecIO", "zarr_")


class SealedError(RuntimeError):
    """What a sealed filesystem raises here where it would open a connection."""


class StepsOfAStore:
    """What the contract for closers does, and counts. Not for use by itself: `CloserContract` is the contract."""

    only_by_awaiting: ClassVar[tuple[str, ...]] = ()
    _before: dict[str, Any]

    def make_filesystem(self) -> AbstractFileSystem:
        """Make a private filesystem: with ``skip_instance_cache=True``, and ``asynchronous=True`` if it can be."""
        raise NotImplementedError("override make_filesystem, which returns a new, private filesystem")

    async def use(self, filesystem: AbstractFileSystem) -> None:
        """Make a real request, so that the filesystem opens what it needs; call what blocks in a thread.

        Parameters
        ----------
        filesystem : fsspec.spec.AbstractFileSystem
            What `make_filesystem` has made.
        """
        raise NotImplementedError("override use, which makes a request to a server")

    def make_closer(self, filesystem: AbstractFileSystem) -> Closer:
        """Make the closer of a filesystem. The default asks the registry, as a store does.

        Parameters
        ----------
        filesystem : fsspec.spec.AbstractFileSystem
            What `make_filesystem` has made.

        Returns
        -------
        Closer
            What is put to the test.
        """
        return closer_for(filesystem)

    def filesystems(self, filesystem: AbstractFileSystem) -> list[AbstractFileSystem]:
        """List what the closer serves: the filesystem alone, unless it was laid over others.

        Parameters
        ----------
        filesystem : fsspec.spec.AbstractFileSystem
            What `make_filesystem` has made.

        Returns
        -------
        list of fsspec.spec.AbstractFileSystem
            The filesystem, and all that it stands on.
        """
        return [filesystem]

    def open_sockets(self) -> int:
        """Count the TCP sockets of this process, but for those that listen. Needs the package psutil."""
        return len(connected_sockets())

    def _unused(self) -> tuple[AbstractFileSystem, Closer]:
        filesystem = self.make_filesystem()
        for each in self.filesystems(filesystem):
            retire_finalizers(each)  # as a store does when it has built one
        return filesystem, self.make_closer(filesystem)

    async def _used(self) -> tuple[AbstractFileSystem, Closer]:
        filesystem, closer = self._unused()
        await closer.open()
        await self.use(filesystem)
        return filesystem, closer

    def _begin_to_close(self, filesystem: AbstractFileSystem, closer: Closer) -> None:
        """Do what a store does before it closes or forces."""
        closer.notice()
        for each in self.filesystems(filesystem):
            retire_own_finalizers(each)
        closer.seal(_refuse)

    async def _end(self, filesystem: AbstractFileSystem, closer: Closer) -> None:
        self._begin_to_close(filesystem, closer)
        await in_time(closer.close())

    def _cut_off(self, filesystem: AbstractFileSystem, closer: Closer) -> None:
        self._begin_to_close(filesystem, closer)
        closer.force()
        closer.force()

    def _held(self) -> dict[str, Any]:
        threads = {each for each in threading.enumerate() if not each.name.startswith(_THREADS_OF_OTHERS)}
        return {"sockets": self.open_sockets(), "threads": threads}

    def _grown(self) -> dict[str, Any]:
        held = self._held()
        return {
            "sockets": max(0, held["sockets"] - self._before["sockets"]),  # what others had open may have gone
            "threads": held["threads"] - self._before["threads"],
        }

    def _check_nothing_named(self, closer: Closer) -> None:
        assert closer.still_open() == []

    def _check_nothing_left(self, closer: Closer) -> None:
        self._check_nothing_named(closer)
        assert self._grown() == {"sockets": 0, "threads": set()}

    async def _settle(self, closer: Closer, *, forced: bool = False) -> None:
        """Wait a few turns of the loop until nothing is open, but for what `force` alone cannot close."""
        may_stay = self.only_by_awaiting if forced else ()
        deadline, turns = time.monotonic() + _TURNS, 0
        while True:
            named, grown = set(closer.still_open()) - set(may_stay), self._grown()
            if not named and (may_stay or grown == {"sockets": 0, "threads": set()}):
                return
            assert turns < 20 or time.monotonic() < deadline, f"still open: {sorted(named)} {grown}"
            await asyncio.sleep(0.005)
            turns += 1


def on_a_loop(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Make a test of a coroutine: it runs on an event loop of its own, and knows what was held before."""

    def run(self: Any) -> None:
        self._before = self._held()
        asyncio.run(test(self))

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return run


def _refuse(*args: object, **kwargs: object) -> NoReturn:
    raise SealedError("this filesystem was sealed")


def was_refused(error: BaseException | None) -> bool:
    """Whether an error is the refusal, or was raised because of it."""
    while error is not None and not isinstance(error, SealedError):
        error = error.__cause__ or error.__context__
    return error is not None


def ask(closer: Closer) -> None:
    closer.notice()
    assert closer.busy() is False
    assert isinstance(closer.still_open(), list)


async def in_time(step: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(_PATIENCE):
        await step
