"""That the proxy shows the faults that it names, and tells how each connection ended."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.servers import FaultProxy, FolderServer, fault_proxy, http_server

CONTENT = b"x" * 300_000


@pytest.fixture(scope="module")
def server() -> Iterator[FolderServer]:
    with http_server() as server:
        (server.root / "x").write_bytes(CONTENT)
        yield server


@pytest.fixture(scope="module")
def module_proxy(server: FolderServer) -> Iterator[FaultProxy]:
    with fault_proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(module_proxy: FaultProxy) -> Iterator[FaultProxy]:
    yield module_proxy
    module_proxy.show("pass")


@pytest.fixture(scope="module")
def tls_proxy() -> Iterator[FaultProxy]:
    with http_server(tls=True) as server:
        (server.root / "x").write_bytes(CONTENT)
        with fault_proxy(server.port, ca_file=server.ca_file) as proxy:
            yield proxy


@contextlib.contextmanager
def asking(proxy: FaultProxy, *, timeout: float = 0.3) -> Iterator[socket.socket]:
    """A connection on which a request has been sent."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        yield connection


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    answer = bytearray()
    while block := connection.recv(1 << 16):
        answer += block
    return bytes(answer)


def test_without_a_fault_everything_passes(proxy: FaultProxy) -> None:
    before = proxy.requests()
    with contextlib.closing(HTTPConnection("127.0.0.1", proxy.port)) as connection:
        for _ in range(3):
            connection.request("GET", "/x")
            assert connection.getresponse().read() == CONTENT
        assert proxy.requests() == before + 3
        assert proxy.connections() == 1
    assert proxy.wait_for_connections(0) == 0


def test_hanging_passes_on_the_request_and_holds_the_answer_back(proxy: FaultProxy, server: FolderServer) -> None:
    proxy.show("hang")
    before = server.requests()
    with asking(proxy) as connection:
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert server.requests() == before + 1
        proxy.show("pass")
        assert connection.recv(5) == b"HTTP/"


def test_dripping_gives_a_byte_a_second(proxy: FaultProxy) -> None:
    proxy.show("drip")
    with asking(proxy, timeout=1.5) as connection:
        assert [connection.recv(10), connection.recv(10)] == [b"H", b"T"]


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_answers_end_in_the_middle(proxy: FaultProxy, fault: str) -> None:
    proxy.show(fault)  # type: ignore[arg-type]
    with asking(proxy) as connection:
        if fault == "reset":
            with pytest.raises(ConnectionResetError):
                received(connection)
        else:
            assert 0 < len(received(connection)) < len(CONTENT)
    assert proxy.seen()[-1].how == "proxy"


def test_refusing_closes_the_port_and_resets_what_is_open(proxy: FaultProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=1) as connection:
        proxy.show("refuse")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    proxy.show("pass")
    assert proxy.request("GET", "/x")[0] == 200


def test_delayed_connections_are_accepted_in_the_end(proxy: FaultProxy) -> None:
    proxy.show("delay_accept")
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3)
    with socket.socket() as connection:
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.connect(("127.0.0.1", proxy.port))
        proxy.show("pass")
    assert proxy.request("GET", "/x")[0] == 200


def test_vanishing_neither_reads_nor_closes(proxy: FaultProxy, server: FolderServer) -> None:
    proxy.show("vanish")
    before = server.requests()
    with asking(proxy) as connection:
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert server.requests() == before


@pytest.mark.parametrize("fault", ["pass", "hang", "vanish", "drip"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_the_client_s_close_is_seen(proxy: FaultProxy, fault: str, how: str) -> None:
    """With its time, and also where nothing is read."""
    proxy.show(fault)  # type: ignore[arg-type]
    with asking(proxy) as connection:
        time.sleep(0.1)
        assert proxy.connections() == 1
        if how == "rst":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault in ("pass", "drip"):  # a close over an unread answer would be RST
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.1)
        closed = time.monotonic()
    assert proxy.wait_for_connections(0) == 0
    last = proxy.seen()[-1]
    assert last.how == how
    assert last.ended is not None
    assert abs(last.ended - closed) < 1


def test_tls_handshakes_stall(tls_proxy: FaultProxy) -> None:
    tls_proxy.show("stall_tls_handshake")
    with socket.create_connection(("127.0.0.1", tls_proxy.port), timeout=0.3) as connection:
        with pytest.raises(TimeoutError):
            tls_proxy.ssl_context().wrap_socket(connection, server_hostname="127.0.0.1")
    tls_proxy.show("pass")
    assert tls_proxy.request("GET", "/x")[2] == CONTENT


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("fault", ["pass", "stall_tls_shutdown"])
def test_the_goodbye_of_tls_is_not_answered(tls_proxy: FaultProxy, fault: str, version: ssl.TLSVersion) -> None:
    """Under that fault alone, and with requests answered before."""
    tls_proxy.show(fault)  # type: ignore[arg-type]
    context = tls_proxy.ssl_context()
    context.maximum_version = version
    with socket.create_connection(("127.0.0.1", tls_proxy.port), timeout=0.3) as plain:
        connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
        connection.sendall(b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404")
        time.sleep(0.1)
        with pytest.raises(TimeoutError) if fault != "pass" else contextlib.nullcontext():
            connection.unwrap()
        connection.close()
    assert tls_proxy.wait_for_connections(0) == 0
