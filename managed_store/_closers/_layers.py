"""The filesystems of a chain, and the closer of all of them: each by its own closer, on the loop that owns it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from managed_store._awaiting import running_loop
from managed_store._closers._closer import Closer
from managed_store._threads import in_helper_thread

__all__ = ["ElsewhereCloser", "Layer", "LayerCloser"]

_logger = logging.getLogger("managed_store")

T = TypeVar("T")

# How long, in seconds, to wait for a step on another event loop that does not block.
_ANSWER = 1.0


@dataclass(eq=False)
class Layer:
    """One filesystem of a chain, with those that it stands on.

    Attributes
    ----------
    filesystem : fsspec.spec.AbstractFileSystem
        The filesystem.
    inner : tuple of Layer
        What it reads from.
    release : tuple of callables
        What undoes things that were made for it: an opened file, a temporary folder. May block.
    borrowed : bool
        Whether it is the user's own, and so not to be touched.
    """

    filesystem: Any
    inner: tuple[Layer, ...] = ()
    release: tuple[Callable[[], None], ...] = ()
    borrowed: bool = False

    def filesystems(self) -> Iterator[Any]:
        """Yield every filesystem that is private to the store, outermost first."""
        if not self.borrowed:
            yield self.filesystem
        for layer in self.inner:
            yield from layer.filesystems()


class LayerCloser(Closer):
    """Closes a layer and then what it stands on. Every step is attempted on each; failures are raised together.

    Parameters
    ----------
    layer : Layer
        The layer.
    own : Closer
        The closer of its filesystem.
    inner : iterable of Closer
        The closers of what it stands on.
    """

    def __init__(self, layer: Layer, own: Closer, inner: Iterable[Closer]) -> None:
        super().__init__(layer.filesystem)
        self._own = own
        self._inner = tuple(inner)
        self._release = list(layer.release)

    async def open(self) -> None:
        for closer in (*self._inner, self._own):
            await closer.open()

    def notice(self) -> None:
        for closer in (self._own, *self._inner):
            closer.notice()

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        _raise(self._attempted_each(lambda closer: closer.seal(refuse)))

    def busy(self) -> bool:
        return any(closer.busy() for closer in (self._own, *self._inner))

    async def close(self) -> None:
        if self._own.busy():  # with a call that can only be interrupted from below
            for closer in self._inner:
                closer.force()
        failures: list[Exception] = []
        await _attempted(self._own.close(), failures)
        for release in self._releases():
            await _attempted(in_helper_thread(release), failures)
        for closer in self._inner:
            await _attempted(closer.close(), failures)
        _raise(failures)

    def force(self) -> None:
        failures = self._attempted_each(lambda closer: closer.force())
        for release in self._releases():
            try:
                release()
            except Exception as error:  # what it would have written is lost, as is all that is cut off
                _logger.debug("Cutting off %s: %s", type(self.filesystem).__name__, type(error).__name__)
        _raise(failures)

    def still_open(self) -> list[str]:
        return [name for closer in (self._own, *self._inner) for name in closer.still_open()]

    def close_copies(self) -> None:
        for closer in (self._own, *self._inner):
            closer.close_copies()

    def _attempted_each(self, step: Callable[[Closer], None]) -> list[Exception]:
        failures: list[Exception] = []
        for closer in (self._own, *self._inner):
            try:
                step(closer)
            except Exception as error:  # of a closer that breaks its contract
                failures.append(error)
        return failures

    def _releases(self) -> Iterator[Callable[[], None]]:
        while self._release:
            yield self._release.pop(0)


class ElsewhereCloser(Closer):
    """Takes the steps of a closer on another event loop, which owns the filesystem.

    A synchronous filesystem calls an asynchronous one by way of fsspec's own loop: the sessions live there.

    Parameters
    ----------
    closer : Closer
        The closer.
    loop : asyncio.AbstractEventLoop
        The loop that owns the filesystem, running in another thread.
    """

    def __init__(self, closer: Closer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(closer.filesystem)
        self._closer = closer
        self._loop = loop

    async def open(self) -> None:
        await self._awaited_there(self._closer.open())

    def notice(self) -> None:
        self._called_there(self._closer.notice, otherwise=None)

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        self._called_there(lambda: self._closer.seal(refuse), otherwise=None)

    def busy(self) -> bool:
        return self._closer.busy()

    async def close(self) -> None:
        await self._awaited_there(self._closer.close())

    def force(self) -> None:
        self._called_there(self._closer.force, otherwise=None)

    def still_open(self) -> list[str]:
        return self._called_there(
            self._closer.still_open, otherwise=["filesystem on an event loop that does not answer"]
        )

    def close_copies(self) -> None:
        self._closer.close_copies()  # the thread of that loop has stayed in the parent

    async def _awaited_there(self, step: Any) -> None:
        if running_loop() is self._loop:
            await step
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, self._loop))

    def _called_there(self, step: Callable[[], T], *, otherwise: T) -> T:
        """Take a step that does not block on the other loop; should that be blocked, go on without it."""
        if running_loop() is self._loop or not self._loop.is_running():
            return step()
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            try:
                answer.set_result(step())
            except BaseException as error:
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        try:
            return answer.result(_ANSWER)
        except concurrent.futures.TimeoutError:
            return otherwise


def _raise(failures: list[Exception]) -> None:
    if failures:
        raise ExceptionGroup("closing failed", failures)


async def _attempted(step: Awaitable[None], failures: list[Exception]) -> None:
    try:
        await step
    except Exception as error:
        failures.append(error)
