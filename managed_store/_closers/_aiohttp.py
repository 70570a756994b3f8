"""Letting go of aiohttp sessions: shared by every backend that speaks through them.

The one place that touches private names of aiohttp (the pool of a connector) and of asyncio (the raw socket of a
transport, for a loop that is closed). ``tests/test_closers.py`` fails first when one of them is renamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias

import aiohttp

from managed_store._closers._closer import Closer

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["AiohttpCloser"]


class AiohttpCloser(Closer):
    """The closer of a filesystem that speaks through aiohttp sessions.

    The sessions stay in place, closed: a filesystem that finds none would open another.
    """

    openers: ClassVar[tuple[str, ...]] = ("set_session",)
    """The methods of the filesystem that open something, the session first; sealed when the closing begins."""

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._held: dict[int, _HeldSession] = {}
        self._notice_from_birth()

    def sessions(self) -> Iterable[aiohttp.ClientSession]:
        """The sessions that the filesystem has opened, which may be none."""
        session = getattr(self.filesystem, "_session", None)  # missing while the constructor fails
        return () if session is None else (session,)

    async def open(self) -> None:
        await getattr(self.filesystem, self.openers[0])()

    def _notice_from_birth(self) -> None:
        """Have every session noticed as soon as it is opened, so that all of its connections are known."""
        self._notice_what_is_opened_by(self.filesystem, self.openers[0])

    def _notice_what_is_opened_by(self, holder: Any, name: str, *, once: bool = True) -> None:
        """Notice a session as soon as the method `name` of `holder` has opened it.

        The method itself takes its place again then, unless it may open others: it is asked with each request.
        """
        opener = getattr(holder, name, None)  # missing while the constructor fails
        if opener is None:
            return

        async def open_and_notice(*args: Any, **kwargs: Any) -> Any:
            opened = await opener(*args, **kwargs)
            if id(opened) not in self._held:
                self.notice()
            if once and getattr(holder, name) is open_and_notice:  # it may have been sealed meanwhile
                setattr(holder, name, opener)
            return opened

        setattr(holder, name, open_and_notice)

    def notice(self) -> None:
        for session in self.sessions():
            held = self._held.get(id(session))
            if held is None:
                held = self._held[id(session)] = _HeldSession(session)
            held.notice()

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        self.notice()
        for session in self._held.values():
            session.seal(refuse)
        for name in self.openers:
            setattr(self.filesystem, name, refuse)

    async def close(self) -> None:
        for session in self._held.values():
            await session.close()

    def force(self) -> None:
        self.notice()
        for session in self._held.values():
            session.force()

    def still_open(self) -> list[str]:
        return ["aiohttp session" for session in self._held.values() if session.still_open()]

    def close_copies(self) -> None:
        self.notice()
        for session in self._held.values():
            session.close_copies()


class _HeldSession:
    """One aiohttp session, and every connection that it has had since this was made.

    They are remembered, because a connector forgets a connection the moment it begins to close it, as it does when the
    caller of a request gives up. Then nobody could cut off one that does not end, or see whether it has.

    Parameters
    ----------
    session : aiohttp.ClientSession
        The session, open or closed.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        # A connector that the user handed in is borrowed: it stays open, and so do its connections.
        self._connector = session.connector if session.connector_owner else None
        self._sockets: dict[Any, Any] = {}  # transport → its socket, which it forgets when it is closed
        self._made: _Made = {}
        if self._connector is not None:
            connect = _remembering(self._connector._create_connection, self._made)
            self._connector._create_connection = connect  # type: ignore[method-assign]

    def notice(self) -> None:
        """Remember the connections that there are now."""
        for reference, held in self._made.values():
            if (transport := reference()) is not None:
                self._sockets.setdefault(transport, held)
        for transport in _transports_of(self._connector):
            if transport not in self._sockets:  # one under TLS that was aborted cannot be asked
                self._sockets[transport] = transport.get_extra_info("socket")

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        """Keep the session from connecting again, and close what nobody reads any more.

        aiohttp makes a request once more, on another connection, where one that was open has broken.
        """
        if self._connector is not None:
            self._connector._create_connection = refuse  # type: ignore[method-assign]
        self._close_responses()

    async def close(self) -> None:
        """Close the session and wait until its sockets are closed."""
        for transport in self._sockets:
            if transport.is_closing():  # of a request that was cut off: no farewell, which under TLS has an answer
                transport.abort()
            elif transport.get_extra_info("sslcontext") is None:  # aiohttp says how TLS ends
                transport.close()
        await asyncio.sleep(0)  # in this turn they are closed; what is not yet, aiohttp makes a task to wait for
        await self._session.close()
        # The sockets go in the turns of the loop that follow: aiohttp waits for most of them, not for all.
        pause = 0.0
        while self._any_socket_open():
            await asyncio.sleep(pause)
            pause = min(pause + 0.001, 0.01)
        self._sockets.clear()

    def force(self) -> None:
        """Close the sockets without a word to the server; where the loop is not running, from below it."""
        self.notice()
        loop = self._session._loop
        for transport, held in self._sockets.items():
            if not _is_foreign(transport) and not _is_open(transport, held):
                continue  # it refers to its loop no more
            from_below = not loop.is_running() and not _is_foreign(transport)
            forget = from_below and (loop.is_closed() or _will_tell_its_protocol_alone(transport))
            if not loop.is_running() and _is_foreign(transport):
                _shut_down(transport)
            if not loop.is_closed():
                transport.abort()  # closes the socket in the loop's next turn
            if from_below:
                _close_raw_socket(transport, forget=forget)
        if self._connector is not None:
            for protocol in tuple(self._connector._acquired) if loop.is_running() else ():
                if hasattr(protocol, "connection_lost"):  # else it is still being connected
                    # The transport says so too late: a protocol that is closed does not wake who reads from it.
                    protocol.connection_lost(ConnectionAbortedError("the connection was cut off"))
            # Not `close()`: that makes a task, which would never run on a loop that does not.
            self._connector._close()
        self._session.detach()

    def _close_responses(self) -> None:
        """Close the responses that are still there, although no request is: their readers were cancelled.

        azure-core lets go of such a response without closing it, and aiohttp warns of its connection later on.
        """
        for response in tuple(_responses_of(self._connector)):
            response.close()

    def still_open(self) -> bool:
        """Whether the session or any socket that it had is open."""
        return not self._session.closed or self._any_socket_open()

    def close_copies(self) -> None:
        """Close the sockets below their transports, but for those of uvloop, whose descriptors are libuv's."""
        for transport in self._sockets:
            if not _is_foreign(transport):
                _close_raw_socket(transport, forget=False)

    def _any_socket_open(self) -> bool:
        return any(_is_open(transport, held) for transport, held in self._sockets.items())


# The number of a socket → a reference to the last transport that had it, and the socket.
_Made: TypeAlias = dict[int, tuple[Callable[[], Any], Any]]


def _remembering(connect: Callable[..., Any], made: _Made) -> Callable[..., Any]:
    """Connect as `connect` does, and remember the transport in `made`, in place of one whose socket is closed."""

    async def connect_and_remember(*args: Any, **kwargs: Any) -> Any:
        protocol = await connect(*args, **kwargs)
        transport = protocol.transport  # None where the connection is lost already
        if transport is not None and (held := transport.get_extra_info("socket")) is not None:
            made[held.fileno()] = _reference_to(transport), held
        return protocol

    return connect_and_remember


def _reference_to(transport: Any) -> Callable[[], Any]:
    """A weak reference: its loop keeps an open transport alive. That of uvloop under TLS knows none."""
    try:
        return weakref.ref(transport)
    except TypeError:
        return lambda: transport


def _transports_of(connector: aiohttp.BaseConnector | None) -> list[Any]:
    """The transports of a connector's connections: those in its pool and those in use."""
    if connector is None:
        return []
    pooled = [protocol for connections in connector._conns.values() for protocol, _ in connections]
    transports = [protocol.transport for protocol in (*pooled, *connector._acquired) if hasattr(protocol, "transport")]
    return [transport for transport in transports if transport is not None]


def _responses_of(connector: aiohttp.BaseConnector | None) -> Iterator[aiohttp.ClientResponse]:
    """The responses whose bodies have not been read to the end. They wait for that, and nothing else knows them."""
    for protocol in () if connector is None else tuple(connector._acquired):
        for waiting in getattr(getattr(protocol, "_payload", None), "_eof_callbacks", ()):
            response = getattr(waiting, "__self__", None)
            if isinstance(response, aiohttp.ClientResponse):
                yield response


def _is_open(transport: Any, held: Any) -> bool:
    if held is None or _is_foreign(transport):  # uvloop goes on giving the number of a socket that it has closed
        return not transport.is_closing()
    number: int = held.fileno()
    return number != -1


def _is_foreign(transport: Any) -> bool:
    return not type(transport).__module__.startswith("asyncio.")


def _will_tell_its_protocol_alone(transport: Any) -> bool:
    """Have a transport tell its protocol when it is aborted, and not touch its socket. False if it has been closed.

    A paused loop may run again, and tells the protocol then, or be closed as it is.
    """
    carrier = _carrier_of(transport)
    if carrier is None or transport.is_closing() or carrier.is_closing():
        return False
    carrier._call_connection_lost = carrier._protocol.connection_lost
    return True


def _close_raw_socket(transport: Any, *, forget: bool) -> None:
    """Close the socket below a transport whose loop is not running.

    Parameters
    ----------
    transport : asyncio.BaseTransport
        The transport.
    forget : bool
        Note in the transport that it is closed, as it does itself when the loop runs. Else its ``__del__`` warns of
        what is closed already. Not where the loop may run again and then closes the socket itself.
    """
    carrier = _carrier_of(transport)
    if carrier is not transport:
        transport._closed = transport._closed or forget
    raw = getattr(carrier, "_sock", None)
    if raw is not None:
        raw.close()
        if forget:
            carrier._sock = None


def _carrier_of(transport: Any) -> Any:
    """The transport that has the socket: under TLS it is one further down."""
    protocol = getattr(transport, "_ssl_protocol", None)
    return transport if protocol is None else getattr(protocol, "_transport", None)


def _shut_down(transport: Any) -> None:
    """End the connection of a uvloop transport. Its descriptor is libuv's, closed when the loop runs or ends."""
    pseudo = transport.get_extra_info("socket")
    if pseudo is not None and not transport.is_closing():
        duplicate = socket.socket(fileno=os.dup(pseudo.fileno()))
        with duplicate, contextlib.suppress(OSError):  # of the other side's having ended it already
            duplicate.shutdown(socket.SHUT_RDWR)
