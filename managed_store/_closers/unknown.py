"""The closer of a filesystem that no closer is registered for: it looks for what it knows how to close."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp

from managed_store._closers._aiohttp import AiohttpCloser
from managed_store._closers._clients import KnownClient, known_client
from managed_store._closers._closer import Closer
from managed_store._search import held_by
from managed_store._threads import in_helper_thread

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["UnknownCloser"]

_logger = logging.getLogger("managed_store")


class UnknownCloser(AiohttpCloser):
    """Closes the sessions, clients, sockets and executors that are found among the filesystem's attributes.

    Then it calls the filesystem's own ``close`` or ``aclose``, should it have one. What the user gave as an option
    is borrowed, and what another filesystem holds is that one's. What was done, and what is not known, is logged at
    DEBUG. `managed_store.register_closer` is the way to do better.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._inner: dict[int, Closer] = {}

    async def open(self) -> None:
        """Open nothing: how, is not known."""

    def _notice_from_birth(self) -> None:
        """Notice nothing yet: a method that opens a session may have any name, and wait for nothing."""

    def sessions(self) -> Iterator[aiohttp.ClientSession]:
        return self._found(lambda value: isinstance(value, aiohttp.ClientSession))

    def notice(self) -> None:
        super().notice()
        for inner in self._filesystems():
            if id(inner) not in self._inner and not _is_shared(inner):
                self._inner[id(inner)] = _closer_of(inner)

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        self.notice()
        for session in self._held.values():
            session.seal(refuse)
        for closer in self._inner.values():
            closer.seal(refuse)

    async def close(self) -> None:
        self.notice()
        cls = type(self.filesystem)
        clients = self._clients()
        _logger.debug(
            "No closer is known for %s.%s: closing %s. managed_store.register_closer tells it more.",
            cls.__module__,
            cls.__qualname__,
            ", ".join(type(each).__name__ for each in (*self.sessions(), *(client for client, _ in clients)))
            or "nothing that was found",
        )
        failures: list[Exception] = []
        for name in ("aclose", "close"):
            if callable(getattr(cls, name, None)):
                await _attempted(getattr(self.filesystem, name), failures)
        for client, known in clients:
            await _attempted(functools.partial(known.close, client), failures, is_async=known.is_async)
        for closer in self._inner.values():
            await _attempted(closer.close, failures)
        await super().close()
        if failures:
            raise ExceptionGroup(f"closing {cls.__qualname__} failed", failures)

    def force(self) -> None:
        super().force()
        for closer in self._inner.values():
            closer.force()
        for client, known in self._clients():
            cut_off = known.force or (None if known.is_async else known.close)
            try:
                if cut_off is not None:
                    cut_off(client)
            except Exception as error:  # whose text may have secrets; `still_open` says what it leaves
                _logger.debug("Cutting off %s: %s", type(client).__name__, type(error).__name__)

    def still_open(self) -> list[str]:
        clients = (known.name for client, known in self._clients() if known.is_open(client))
        inner = (name for closer in self._inner.values() for name in closer.still_open())
        return [*super().still_open(), *clients, *inner]

    def _clients(self) -> list[tuple[Any, KnownClient]]:
        found = ((each, known_client(each)) for each in self._found(lambda value: known_client(value) is not None))
        return [(each, known) for each, known in found if known is not None]

    def _found(self, wanted: Callable[[Any], bool]) -> Iterator[Any]:
        return held_by(self.filesystem, wanted, borrowed=[*self._borrowed(), *self._filesystems()])

    def _filesystems(self) -> list[Any]:
        from fsspec.spec import AbstractFileSystem

        return list(
            held_by(self.filesystem, lambda each: isinstance(each, AbstractFileSystem), borrowed=self._borrowed())
        )

    def _borrowed(self) -> list[Any]:
        options = getattr(self.filesystem, "storage_options", {})  # missing while the constructor fails
        return [*options.values(), *getattr(self.filesystem, "storage_args", ())]


def _closer_of(filesystem: AbstractFileSystem) -> Closer:
    from managed_store._closers import Layer, closer_of

    return closer_of(Layer(filesystem))


def _is_shared(filesystem: Any) -> bool:
    """Whether fsspec gives the filesystem to everybody who asks for one like it: then it is not ours to close."""
    return any(each is filesystem for each in type(filesystem)._cache.values())


async def _attempted(closing: Callable[[], Any], failures: list[Exception], *, is_async: bool = False) -> None:
    """Call what closes something, in a thread because it may block, or await it."""
    try:
        if is_async or inspect.iscoroutinefunction(closing):
            await closing()
        else:
            await in_helper_thread(closing)
    except Exception as error:
        failures.append(error)
