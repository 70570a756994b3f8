"""Leaving takes at most `close_timeout`, whatever a server or another loop does; then connections are cut off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StoreCloseError
from tests.footprint import Footprint
from tests.servers import FolderServer, http_server
from tests.servers._certificate import make_certificate
from tests.timing import at_most

PROTOTYPE = default_buffer_prototype()
KEY = "greeting"
CONTENT = b"good morning"
TIMEOUT = 0.5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"


@dataclass
class HungServer:
    """A server that accepts, and then does not do what it should."""

    url: str
    ssl: ssl.SSLContext | None = None
    asked: list[bytes] = field(default_factory=list)
    """The first bytes of each connection."""
    open: int = 0
    """Connections that the client has not closed yet."""

    @property
    def options(self) -> dict[str, Any]:
        return {} if self.ssl is None else {"ssl": self.ssl}

    def wait_until_asked(self, count: int) -> None:
        deadline = time.monotonic() + 5
        while len(self.asked) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def wait_until_left(self) -> None:
        """The client has closed every connection."""
        deadline = time.monotonic() + 2
        while self.open and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.open == 0


@contextmanager
def hung_server(how: str) -> Iterator[HungServer]:
    """Run one in a thread: ``silent``, ``dripping``, ``tls`` (silent above TLS) or ``handshake`` (silent below it)."""
    with ExitStack() as stack:
        context = client_context = None
        if how == "tls":
            certificate = make_certificate(stack)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate.certificate_file, certificate.key_file)
            client_context = ssl.create_default_context(cafile=str(certificate.ca_file))
        started: list[HungServer] = []
        ready, end = threading.Event(), asyncio.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server = started[0]
            server.open += 1
            try:
                server.asked.append(await reader.read(4096))
                if how == "dripping":
                    writer.write(HEAD)
                    while not writer.is_closing():
                        writer.write(b"x")
                        await asyncio.sleep(0.02)
                while await reader.read(4096):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass
            finally:
                server.open -= 1
                writer.transport.abort()

        async def serve() -> None:
            async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as listening:
                port = listening.sockets[0].getsockname()[1]
                protocol = "https" if how in ("tls", "handshake") else "http"
                started.append(HungServer(f"{protocol}://127.0.0.1:{port}", client_context))
                loops.append(asyncio.get_running_loop())
                ready.set()
                await end.wait()

        thread = threading.Thread(target=asyncio.run, args=[serve()])
        thread.start()
        ready.wait()
        try:
            yield started[0]
        finally:
            loops[0].call_soon_threadsafe(end.set)
            thread.join()


HOW = ["silent", "dripping", "tls", "handshake"]


def client_sockets(server: HungServer) -> int:
    """This process's sockets that are connected to the server: its own ends are in this process too."""
    port = int(server.url.rpartition(":")[2])
    connections = psutil.Process().net_connections(kind="tcp")
    return sum(bool(connection.raddr) and connection.raddr.port == port for connection in connections)


@pytest.mark.parametrize("how", HOW)
def test_a_server_that_hangs_is_left_in_time(how: str) -> None:
    """Reads on zarr's loop and on another, at a server that never answers: leaving cuts them off in time."""
    errors: list[BaseException] = []

    def read(run: Callable[[Any], Any], store: ManagedStore) -> None:
        try:
            run(store.get(KEY, PROTOTYPE))
        except BaseException as error:
            errors.append(error)

    with hung_server(how) as server:
        store = ManagedStore(server.url, storage_options=server.options, close_timeout=TIMEOUT)
        threads = [threading.Thread(target=read, args=(run, store)) for run in (sync, sync, asyncio.run)]
        for thread in threads:
            thread.start()
        server.wait_until_asked(3)
        with at_most(TIMEOUT):
            store.close()
        for thread in threads:
            thread.join(1)
        assert [type(error) for error in errors] == [StoreClosedError] * 3
        server.wait_until_left()
        assert store.statistics().loops == 0
        assert client_sockets(server) == 0


@pytest.mark.parametrize("how", HOW)
async def test_a_server_that_hangs_is_left_in_time_asynchronously(how: str) -> None:
    """The same for `aclose` on the loop that reads; after an exception in the body it is left at once."""
    with hung_server(how) as server:
        for body, limit in ((None, TIMEOUT), (ZeroDivisionError, TIMEOUT / 4)):
            asked = len(server.asked)
            store = ManagedStore(server.url, storage_options=server.options, close_timeout=TIMEOUT)
            reads = [asyncio.create_task(store.get(KEY, PROTOTYPE)) for _ in range(3)]
            await asyncio.to_thread(server.wait_until_asked, asked + 3)
            with at_most(limit), contextlib.suppress(ZeroDivisionError):
                async with store:
                    if body is not None:
                        raise body
            answers = await asyncio.gather(*reads, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreClosedError] * 3
            await asyncio.to_thread(server.wait_until_left)


def test_a_server_that_never_ends_tls_is_left_in_time() -> None:
    """A server that goes silent after the handshake, deaf even to TLS's goodbye: no socket outlives the closing."""
    with ExitStack() as stack:
        certificate = make_certificate(stack)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate_file, certificate.key_file)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        asked = threading.Event()

        def answer() -> None:
            connection = stack.enter_context(context.wrap_socket(listener.accept()[0], server_side=True))
            connection.recv(4096)
            asked.set()

        def read() -> None:
            with pytest.raises(StoreClosedError):
                sync(store.get(KEY, PROTOTYPE))

        server = HungServer(f"https://127.0.0.1:{listener.getsockname()[1]}")
        options = {"ssl": ssl.create_default_context(cafile=str(certificate.ca_file))}
        store = ManagedStore(server.url, storage_options=options, close_timeout=TIMEOUT)
        threads = [threading.Thread(target=function) for function in (answer, read)]
        for thread in threads:
            thread.start()
        assert asked.wait(5)
        with at_most(TIMEOUT):
            store.close()
        assert client_sockets(server) == 0
        for thread in threads:
            thread.join()


async def test_a_write_that_hangs_is_cut_off_in_time() -> None:
    """A write may take the time there is after an exception too, but not more."""
    with hung_server("silent") as server:
        store = ManagedStore(server.url, close_timeout=TIMEOUT)
        writing = asyncio.create_task(store.set(KEY, cpu.Buffer.from_bytes(b"x")))
        await asyncio.to_thread(server.wait_until_asked, 1)
        with at_most(TIMEOUT), pytest.raises(ZeroDivisionError):
            async with store:
                raise ZeroDivisionError
        with pytest.raises(StoreClosedError):
            await writing
        await asyncio.to_thread(server.wait_until_left)


async def test_a_request_that_does_not_let_itself_be_cancelled(server: FolderServer) -> None:
    """A filesystem that swallows cancellations does not keep the store from leaving in time."""
    store = ManagedStore(server.url, close_timeout=TIMEOUT)
    await store.get(KEY, PROTOTYPE)
    release = asyncio.Event()

    async def stubborn(*args: Any, **kwargs: Any) -> bytes:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        return CONTENT

    store.fs._cat_file = stubborn
    reading = asyncio.create_task(store.get(KEY, PROTOTYPE))
    await asyncio.sleep(0.02)
    with at_most(TIMEOUT):
        await store.aclose()
    assert store.statistics().loops == 0
    release.set()
    await asyncio.wait([reading])
    task_count = reading.cancelling()
    assert task_count == 0


async def test_no_time_at_all_cuts_off(server: FolderServer) -> None:
    """`close_timeout=0` means: cut off now. On a loop that answers there is nothing to complain of."""
    before = Footprint.now().sockets
    async with ManagedStore(server.url, close_timeout=0) as store:
        await store.get(KEY, PROTOTYPE)
    await asyncio.sleep(0.01)
    assert Footprint.now().sockets == before
    assert store.statistics().loops == 0


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server that answers; in the end it must see no connection."""
    with http_server() as server:
        (server.root / KEY).write_bytes(CONTENT)
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_loop_that_is_blocked_is_named_in_time(tls: bool) -> None:
    """A loop that does not answer: leaving returns in time with an error that names what is open; later it closes."""
    with http_server(tls=tls) as server:
        (server.root / KEY).write_bytes(CONTENT)
        options = {"ssl": server.ssl_context()} if tls else {}
        store = ManagedStore(server.url, storage_options=options, close_timeout=0.2)
        opened, unblock, closed = threading.Event(), threading.Event(), threading.Event()

        async def main() -> None:
            await store.get(KEY, PROTOTYPE)
            opened.set()
            unblock.wait(5)  # blocks this loop
            while store.statistics().loops:
                await asyncio.sleep(0.001)
            closed.set()

        thread = threading.Thread(target=asyncio.run, args=[main()])
        thread.start()
        opened.wait()
        sync(store.get(KEY, PROTOTYPE))
        with at_most(0.2), pytest.raises(StoreCloseError) as caught:
            store.close()
        assert len(caught.value.left_open) == 1
        assert server.url in str(caught.value)
        assert "loop" in str(caught.value)
        assert server.wait_for_connections(1) == 1  # that on zarr's loop is gone
        unblock.set()
        assert closed.wait(2)
        assert server.wait_for_connections(0) == 0
        thread.join()


def test_a_handle_dropped_while_a_closed_store_waits_for_a_blocked_loop(server: FolderServer) -> None:
    """A store that was closed, though not in time, was not forgotten: no ResourceWarning for its last handle."""
    store = ManagedStore(server.url, close_timeout=0.1)
    opened, unblock = threading.Event(), threading.Event()

    async def main() -> None:
        await store.get(KEY, PROTOTYPE)
        opened.set()
        unblock.wait(5)  # blocks this loop
        while store.statistics().loops:
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    opened.wait()
    derived = store.with_read_only(True)
    with pytest.raises(StoreCloseError):
        store.close()
    del derived  # a warning would be an error here
    unblock.set()
    thread.join()
