"""The closer of a filesystem that no closer is registered for: it looks for what it knows how to close."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp

from managed_store._closers._aiohttp import AiohttpCloser
from managed_store._closers._closer import Closer
from managed_store._closers.requests import close_session
from managed_store._search import held_by
from managed_store._threads import in_helper_thread

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["UnknownCloser"]

_logger = logging.getLogger("managed_store")

# Clients of well-known packages, by the qualified name of their class, and how each is closed.
_KNOWN_CLIENTS: dict[str, Callable[[Any], Any]] = {
    "concurrent.futures.thread.ThreadPoolExecutor": operator.methodcaller("shutdown"),
    "ftplib.FTP": operator.methodcaller("close"),
    "http.client.HTTPConnection": operator.methodcaller("close"),
    "httpx.AsyncClient": operator.methodcaller("aclose"),
    "httpx.Client": operator.methodcaller("close"),
    "paramiko.client.SSHClient": operator.methodcaller("close"),
    "requests.sessions.Session": close_session,
    "socket.socket": operator.methodcaller("close"),
    "urllib3.poolmanager.PoolManager": operator.methodcaller("clear"),
}


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

    def sessions(self) -> Iterator[aiohttp.ClientSession]:
        return self._found(lambda value: isinstance(value, aiohttp.ClientSession))

    def notice(self) -> None:
        super().notice()
        for inner in self._filesystems():
            if id(inner) not in self._inner and not _is_shared(inner):
                self._inner[id(inner)] = _closer_of(inner)

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        self.notice()
        for closer in self._inner.values():
            closer.seal(refuse)

    async def close(self) -> None:
        self.notice()
        cls = type(self.filesystem)
        clients = list(self._clients())
        _logger.debug(
            "No closer is known for %s.%s: closing %s. managed_store.register_closer tells it more.",
            cls.__module__,
            cls.__qualname__,
            ", ".join(type(each).__name__ for each in (*self.sessions(), *clients)) or "nothing that was found",
        )
        failures: list[Exception] = []
        for holder, name in ((self.filesystem, "aclose"), (self.filesystem, "close")):
            if callable(getattr(cls, name, None)):
                await _attempted(getattr(holder, name), failures)
        for client in clients:
            await _attempted(functools.partial(_way_to_close(client), client), failures)
        for closer in self._inner.values():
            await _attempted(closer.close, failures)
        await super().close()
        if failures:
            raise ExceptionGroup(f"closing {cls.__qualname__} failed", failures)

    def force(self) -> None:
        super().force()
        for closer in self._inner.values():
            closer.force()
        for client in self._clients():
            try:
                if isinstance(client, socket.socket):
                    client.shutdown(socket.SHUT_RDWR)
                closing = _way_to_close(client)(client)
                if inspect.iscoroutine(closing):
                    closing.close()  # cannot be awaited here
            except Exception:  # `still_open` says what that leaves
                _logger.debug("%s could not be cut off.", type(client).__name__, exc_info=True)

    def still_open(self) -> list[str]:
        sockets = (each for each in self._clients() if isinstance(each, socket.socket) and each.fileno() != -1)
        inner = (name for closer in self._inner.values() for name in closer.still_open())
        return [*super().still_open(), *("socket" for _ in sockets), *inner]

    def _clients(self) -> Iterator[Any]:
        return self._found(lambda value: _way_to_close(value) is not None)

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


def _way_to_close(value: Any) -> Any:
    """How a client that is known is closed, or None."""
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__)
    return next((_KNOWN_CLIENTS[name] for name in names if name in _KNOWN_CLIENTS), None)


async def _attempted(closing: Callable[[], Any], failures: list[Exception]) -> None:
    """Call what closes something, in a thread because it may block, and await what it returns, if that is awaited."""
    try:
        answer = await in_helper_thread(closing)
        if inspect.isawaitable(answer):
            await answer
    except Exception as error:
        failures.append(error)
