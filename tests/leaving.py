"""Leave a store while its server shows a fault, with `with` or with `async with`, and look at what became of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import gcsfs.core  # type: ignore[import-untyped]
import psutil
import uvloop
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.footprint import Footprint
from tests.servers import FaultProxy, RunningServer, fault_proxy, gcs_server, http_server, s3_server
from tests.servers._faulty_connection import Fault
from tests.timing import Stopwatch

__all__ = [
    "CONTENT",
    "KEY",
    "SLACK",
    "Behind",
    "How",
    "Left",
    "Proxies",
    "Use",
    "is_fair",
    "leave",
    "read",
    "sockets_to",
    "write",
    "writing",
]

PROTOTYPE = default_buffer_prototype()
KEY = "folder/key"
CONTENT = bytes(range(256)) * 1200

# Leaving is given this much more than `close_timeout`, in seconds.
SLACK = 1.0
# How long to wait for requests to be in flight, in seconds; some faults answer them before.
_TO_BE_IN_FLIGHT = 5.0
_FURTHER = 0.05

# What zarr, xarray or a careful caller would take for "no such key".
LIKE_A_MISSING_KEY = (LookupError, ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError)

How = Literal["sync", "async", "uvloop"]
Use = Callable[[ManagedStore], Coroutine[Any, Any, Any]]


async def read(store: ManagedStore) -> bytes | None:
    """Read the key that is there."""
    value = await store.get(KEY, PROTOTYPE)
    return None if value is None else value.to_bytes()


def writing(key: str, content: bytes) -> Use:
    """A write of `content`, which returns what has been written."""

    async def write(store: ManagedStore) -> bytes:
        await store.set(key, cpu.Buffer.from_bytes(content))
        return content

    return write


write = writing("written", CONTENT)


@dataclass(frozen=True)
class Behind:
    """A server that holds `KEY`, and the proxy in front of it."""

    backend: str
    server: RunningServer
    proxy: FaultProxy

    def store(self, *, close_timeout: float, direct: bool = False) -> ManagedStore:
        """A store there, through the proxy, or past it."""
        at: RunningServer = self.server if direct else self.proxy
        if self.backend in ("http", "https"):
            options: dict[str, Any] = {} if at.ca_file is None else {"ssl": at.ssl_context()}
            return ManagedStore(f"{at.url}/data.zarr", storage_options=options, close_timeout=close_timeout)
        options = {**self.server.storage_options, "endpoint_url": at.url}
        if self.backend == "gs":  # gcsfs's plain filesystem: the other asks over gRPC too, and tries for long
            filesystem = gcsfs.core.GCSFileSystem(**options, asynchronous=True, skip_instance_cache=True)
            return ManagedStore.from_filesystem(filesystem, "bucket/data.zarr", close_timeout=close_timeout)
        url = f"{self.backend.removesuffix(' with gRPC')}://bucket/data.zarr"
        return ManagedStore(url, storage_options=options, close_timeout=close_timeout)

    def contents(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """What the server itself holds."""

        async def get(store: ManagedStore, key: str) -> bytes | None:
            value: Buffer | None = await store.get(key, PROTOTYPE)
            return None if value is None else value.to_bytes()

        with self.store(close_timeout=5, direct=True) as store:
            return {key: sync(get(store, key)) for key in keys}


class Proxies:
    """Servers with a proxy before each, started when first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[str, Behind] = {}

    def before(self, backend: str) -> Behind:
        """The one for ``http``, ``https``, ``s3``, ``gs``, or ``gs with gRPC``."""
        if backend not in self._started:
            starters: dict[str, Callable[[], AbstractContextManager[Any]]] = {
                "http": http_server,
                "https": lambda: http_server(tls=True),
                "s3": s3_server,
                "gs": gcs_server,
                "gs with gRPC": gcs_server,
            }
            server = self._stack.enter_context(starters[backend]())
            if backend not in ("http", "https"):
                server.create_bucket("bucket")
            proxy = self._stack.enter_context(fault_proxy(server.port, ca_file=server.ca_file))
            behind = Behind(backend, server, proxy)
            with behind.store(close_timeout=5, direct=True) as store:
                sync(writing(KEY, CONTENT)(store))
            self._started[backend] = behind
        return self._started[backend]

    def pass_everything(self) -> None:
        """No faults any more."""
        for behind in self._started.values():
            behind.proxy.show("pass")


@dataclass
class Left:
    """What came of leaving a store."""

    took: float
    """Seconds that leaving took, but for those in which it waited for a processor."""
    sockets: int
    """Sockets to the proxy that were open right after it."""
    grown: dict[str, int]
    """What the process had more of, when everybody had their answer."""
    answers: list[object]
    """What each use gave, or the exception that it raised."""
    raised: BaseException | None
    """What came out of the block."""
    connections: int = 0
    """What the proxy still saw open soon afterwards."""

    def check(self, close_timeout: float, error: BaseException | None) -> None:
        """The promises: in time, nothing left open, a fair answer for everybody, and the body's own exception."""
        assert self.raised is error
        assert getattr(error, "__notes__", []) == []
        assert self.took < close_timeout + SLACK
        assert (self.sockets, self.connections) == (0, 0)
        assert {name: self.grown[name] for name in ("sockets", "tasks") if self.grown[name] > 0} == {}
        assert [answer for answer in self.answers if not is_fair(answer)] == []


def is_fair(answer: object) -> bool:
    """Data, StoreClosedError, or an error of the server's that says neither "no such key" nor "session is closed"."""
    if isinstance(answer, StoreClosedError):
        return True
    if isinstance(answer, Exception):
        return not isinstance(answer, LIKE_A_MISSING_KEY) and "closed" not in str(answer).lower()
    return answer == CONTENT


def sockets_to(port: int) -> int:
    """This process's sockets whose other end is that port, also those that are not connected yet."""
    connections = psutil.Process().net_connections(kind="tcp")
    return sum(bool(each.raddr) and each.raddr.port == port for each in connections)


def leave(
    how: How,
    behind: Behind,
    fault: Fault,
    uses: Sequence[Use],
    *,
    close_timeout: float,
    opened_before: bool = True,
    error: BaseException | None = None,
    further: float = _FURTHER,
) -> Left:
    """Open a store, let the fault begin, begin the uses, and leave the store while they are in flight.

    `opened_before` says whether a first read has gone well, so that there is a connection in the pool. `error` is what
    the body raises, and `further` for how many seconds the requests are left alone once they are in flight.
    """
    store = behind.store(close_timeout=close_timeout)
    before: list[Use] = [read] if opened_before else []
    if how != "sync":
        run = uvloop.run if how == "uvloop" else asyncio.run
        left = run(_leave_asynchronously(store, behind.proxy, fault, before, uses, error, further))
    else:
        left = _leave_synchronously(store, behind.proxy, fault, before, uses, error, further)
    if fault != "vanish":  # with its buffers full, it does not even hear that a client has closed
        left.connections = behind.proxy.wait_for_connections(0)
    return left


def _leave_synchronously(
    store: ManagedStore,
    proxy: FaultProxy,
    fault: Fault,
    before: Sequence[Use],
    uses: Sequence[Use],
    error: BaseException | None,
    further: float,
) -> Left:
    answers: list[object] = []

    def answer(use: Use) -> None:
        try:
            answers.append(sync(use(store)))
        except BaseException as failure:  # a cancellation too: it is an answer that nobody may get
            answers.append(failure)

    sync(asyncio.sleep(0))  # zarr's loop is not to be counted
    footprint = Footprint.now()
    threads = [threading.Thread(target=answer, args=[use]) for use in uses]
    raised: BaseException | None = None
    watch = Stopwatch()
    try:
        with store:
            for use in before:
                assert sync(use(store)) == CONTENT
            proxy.show(fault)
            for thread in threads:
                thread.start()
            for _ in _until_in_flight(store, uses, answers):
                time.sleep(0.005)
            time.sleep(further)
            watch = Stopwatch()
            if error is not None:
                raise error
    except BaseException as failure:
        raised = failure
    took = watch.took()
    sockets = sockets_to(proxy.port)
    for thread in threads:
        thread.join(1)
    assert not any(thread.is_alive() for thread in threads)
    return Left(took, sockets, footprint.grown_by(Footprint.now()), answers, raised)


async def _leave_asynchronously(
    store: ManagedStore,
    proxy: FaultProxy,
    fault: Fault,
    before: Sequence[Use],
    uses: Sequence[Use],
    error: BaseException | None,
    further: float,
) -> Left:
    async def answer(use: Use) -> None:
        try:
            answers.append(await use(store))
        except BaseException as failure:
            answers.append(failure)

    footprint = Footprint.now()
    answers: list[object] = []
    tasks: list[asyncio.Task[None]] = []
    raised: BaseException | None = None
    watch = Stopwatch()
    try:
        async with store:
            for use in before:
                assert await use(store) == CONTENT
            proxy.show(fault)
            tasks += [asyncio.create_task(answer(use)) for use in uses]
            for _ in _until_in_flight(store, uses, answers):
                await asyncio.sleep(0.005)
            await asyncio.sleep(further)
            watch = Stopwatch()
            if error is not None:
                raise error
    except BaseException as failure:
        raised = failure
    took = watch.took()
    sockets = sockets_to(proxy.port)
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=1)
        assert not pending
    return Left(took, sockets, footprint.grown_by(Footprint.now()), answers, raised)


def _until_in_flight(store: ManagedStore, uses: Sequence[Use], answers: Sequence[object]) -> Iterator[None]:
    """Goes on until every use is in flight or answered, for a while at most."""
    deadline = time.monotonic() + _TO_BE_IN_FLIGHT
    while store.statistics().requests_in_flight + len(answers) < len(uses) and time.monotonic() < deadline:
        yield
