"""Requests that their caller gave up before the store was left: their connections are closed with the others.

aiohttp forgets such a connection. It stays until the server has read all that was written, or answers TLS's goodbye.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest
from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]

from managed_store import ManagedStore
from tests.leaving import How, Proxies, Use, leave, read, sockets_to, writing
from tests.servers._certificate import Certificate, make_certificate
from tests.servers._faulty_connection import Fault
from tests.stopping import start_loops
from tests.timing import at_most

TIMEOUT = 1.5
# More than the buffers of two sockets hold.
LARGE = bytes(30 << 20)
# In seconds: when a caller gives up, and when the store is left after that.
PATIENCE = 0.2
LATER = 0.5

# aiohttp's, of what fsspec's HTTP filesystem writes.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")


@pytest.fixture(scope="module")
def started() -> Iterator[Proxies]:
    start_loops()
    with ExitStack() as stack:
        yield Proxies(stack)


@pytest.fixture
def proxies(started: Proxies) -> Iterator[Proxies]:
    """Proxies that show no fault yet."""
    yield started
    started.pass_everything()


def given_up(use: Use) -> Use:
    """The same, by a caller who soon gives up."""

    async def give_up(store: ManagedStore) -> object:
        async with asyncio.timeout(PATIENCE):
            return await use(store)

    return give_up


write = writing("given up", LARGE)


@pytest.mark.parametrize(
    ("backend", "fault"),
    [("http", "vanish"), ("https", "vanish"), ("gs", "vanish"), ("s3", "vanish"), ("https", "stall_tls_shutdown")],
)
@pytest.mark.parametrize("how", ["sync", "async", "uvloop"])
def test_on_connections_that_were_used_before(how: How, backend: str, fault: Fault, proxies: Proxies) -> None:
    """A write that the server does not read, and a read that it does not answer."""
    uses = [given_up(write), given_up(read)]
    leave(how, proxies.before(backend), fault, uses, close_timeout=TIMEOUT, further=LATER).check(TIMEOUT, None)


@dataclass(frozen=True)
class DeafServer:
    """Where it is, and whether a request has come."""

    port: int
    heard: threading.Event


@contextmanager
def deaf_server(certificate: Certificate | None, answer: bytes = b"") -> Iterator[DeafServer]:
    """A server that reads the beginning of a request, answers at once, and then neither reads nor closes any more."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate_file, certificate.key_file)
    connections: list[socket.socket] = []
    heard = threading.Event()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):  # the client has left in the midst of the handshake
            wrapped = connection if context is None else context.wrap_socket(connection, server_side=True)
            connections.append(wrapped)
            if wrapped.recv(100):
                heard.set()
            wrapped.sendall(answer)

    def accept() -> None:
        with suppress(OSError):  # the block has ended
            while True:
                threading.Thread(target=serve, args=[listening.accept()[0]]).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield DeafServer(listening.getsockname()[1], heard)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in connections:
                connection.close()


def store_at(backend: str, address: str) -> ManagedStore:
    """A store on `backend` at that address."""
    match backend:
        case "http":
            return ManagedStore(address)
        case "gs":
            # gcsfs's plain filesystem: the other asks over gRPC first, which does not trust this certificate.
            filesystem = GCSFileSystem(endpoint_url=address, token="anon", asynchronous=True, skip_instance_cache=True)
            return ManagedStore.from_filesystem(filesystem, "bucket/root")
        case "s3":
            options = {"key": "any", "secret": "any", "endpoint_url": address, "client_kwargs": {"verify": False}}
            return ManagedStore("s3://bucket/root", storage_options=options)
        case _:
            account = f"AccountName=any;AccountKey=YW55;BlobEndpoint={address}/any;"
            return ManagedStore("az://container/root", storage_options={"connection_string": account})


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    with ExitStack() as stack:
        yield make_certificate(stack)


async def given_up_when_heard(store: ManagedStore, use: Use, server: DeafServer) -> None:
    """Give a request up when the server has heard of it, and does not go on."""
    using = asyncio.create_task(use(store))
    assert await asyncio.to_thread(server.heard.wait, 20)
    await asyncio.sleep(PATIENCE)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using


@pytest.mark.parametrize("use", [read, write], ids=["read", "write"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", ["http", "gs", "s3", "az"])
async def test_as_the_very_first_request(
    backend: str, scheme: str, use: Use, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those sessions are known that a backend opens with its first request."""
    trusting = ssl.create_default_context(cafile=certificate.ca_file)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    with deaf_server(certificate if scheme == "https" else None) as server:
        async with store_at(backend, f"{scheme}://127.0.0.1:{server.port}") as store:
            await given_up_when_heard(store, use, server)
            with at_most(0.5):
                await store.aclose()
        assert sockets_to(server.port) == 0


async def test_session_that_is_opened_from_synchronous_code() -> None:
    """On the loop's own thread nothing is awaited, and the filesystem's session is opened by the first request."""
    with deaf_server(None) as server:
        async with store_at("http", f"http://127.0.0.1:{server.port}") as store:
            assert store.fs is not None
            await given_up_when_heard(store, write, server)
        assert sockets_to(server.port) == 0


async def test_write_that_is_refused_before_it_was_read() -> None:
    """Nobody gives up here: the answer comes before the server has read what was written."""
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
    with deaf_server(None, refusal) as server:
        async with store_at("http", f"http://127.0.0.1:{server.port}") as store:
            with pytest.raises(Exception, match="413"):
                await write(store)
        assert sockets_to(server.port) == 0
