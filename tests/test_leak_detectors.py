"""Every detector has a leak that it alone catches: each block below leaves open one thing, and one is told."""

from __future__ import annotations

import _socket
import asyncio
import concurrent.futures
import gc
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
import uvloop

from managed_store.testing import Leak, LeakReport, leak_check
from tests.servers import FolderServer, S3Server

LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@contextmanager
def leaking(kind: str, *, made_here: bool = True) -> Iterator[list[Leak]]:
    """A block that leaves one thing of one kind open; the leak is in the list afterwards."""
    found: list[Leak] = []
    with leak_check(on_leak="report", grace=0) as check:
        yield found
        found += check.so_far()
    assert [leak.kind for leak in check.report] == [kind], str(check.report)
    assert not made_here or str(found[0].made_at).startswith(__file__)


@LOOPS
def test_a_session_over_a_connector_of_others(run: Callable[[Awaitable[Any]], Any]) -> None:
    """aiohttp.ClientSession."""

    async def main() -> None:
        connector = aiohttp.TCPConnector()
        with leaking("session") as found:
            session = aiohttp.ClientSession(connector=connector)
        assert found[0].what == "aiohttp.client.ClientSession"
        await session.close()
        await connector.close()

    run(main())


@pytest.mark.leaks
def test_a_session_that_was_collected() -> None:
    """It counts, unlike its sockets; also when it goes in a cycle, and its own warnings come."""

    async def main(in_a_cycle: bool) -> None:
        connector = aiohttp.TCPConnector()
        told: list[type[Warning]] = []
        with warnings.catch_warnings(), leaking("session") as found:
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, category, *_: told.append(category)  # type: ignore[assignment]
            session: Any = aiohttp.ClientSession(connector=connector)
            if in_a_cycle:
                holder = [session]
                holder.append(holder)
                del holder
            del session
            gc.collect()
        assert found[0].collected
        assert "collected unclosed" in str(found[0])
        assert told == [ResourceWarning]
        await connector.close()

    for in_a_cycle in (False, True):
        asyncio.run(main(in_a_cycle))


def test_a_session_that_was_closed_and_collected() -> None:
    """Is no leak."""

    async def main() -> None:
        async with leak_check(grace=0):
            session: Any = aiohttp.ClientSession()
            await session.close()
            del session
            gc.collect()

    asyncio.run(main())


@LOOPS
def test_a_connector_without_a_session(run: Callable[[Awaitable[Any]], Any]) -> None:
    """aiohttp.TCPConnector, before it has a connection: aiohttp itself warns of none then."""

    async def main() -> None:
        with leaking("connector") as found:
            connector = aiohttp.TCPConnector()
        assert found[0].what == "aiohttp.connector.TCPConnector"
        await connector.close()

    run(main())


def test_a_client_of_aiobotocore_that_was_never_used(s3: S3Server) -> None:
    """An entered client has no session yet; one that was left or closed is no leak."""
    from aiobotocore.session import get_session

    options: dict[str, Any] = {
        "endpoint_url": s3.storage_options["endpoint_url"],
        "region_name": "us-east-1",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "s3cr3t",
    }

    async def main() -> None:
        with leaking("client") as found:
            context = get_session().create_client("s3", **options)
            client = await context.__aenter__()
        assert found[0].what == "aiobotocore.client.S3"
        await client.list_buckets()
        await context.__aexit__(None, None, None)
        async with leak_check():
            async with get_session().create_client("s3", **options) as client:
                await client.list_buckets()
            client = await get_session().create_client("s3", **options).__aenter__()
            await client.list_buckets()
            await client.close()

    asyncio.run(main())


@pytest.mark.leaks
def test_a_channel_of_grpc() -> None:
    """grpc.aio.Channel, which connects to nothing yet; its poller, thread and sockets, is the process's."""
    import grpc.aio

    async def main() -> None:
        with leaking("channel") as found:
            channel = grpc.aio.insecure_channel("127.0.0.1:1")
        assert found[0].loop_state == "running"
        await channel.close()
        with leaking("channel") as found:
            dropped: Any = grpc.aio.insecure_channel("127.0.0.1:1")
            del dropped
            gc.collect()
        assert found[0].collected
        async with leak_check(), grpc.aio.insecure_channel("127.0.0.1:1"):
            pass

    asyncio.run(main())


def test_a_filesystem_with_a_client_that_has_not_connected() -> None:
    """webdav4's holds an httpx client, which no other detector knows."""
    from webdav4.fsspec import WebdavFileSystem

    with leaking("filesystem") as found:
        filesystem = WebdavFileSystem("http://user:s3cr3t@127.0.0.1:1", skip_instance_cache=True)
    assert found[0].what == "webdav4.fsspec.WebdavFileSystem, which holds a live Client"
    filesystem.client.http.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_socket(family: int) -> None:
    """Python's own; one that is closed or collected is none."""
    with leaking("socket") as found:
        left = socket.socket(family)
    left.close()
    assert found[0].what in ("TCP 0.0.0.0:0, not connected", "UNIX pair")
    with leak_check(grace=0), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        socket.socket(family)
        socket.socket(family).close()


def test_a_socket_below_python(http: FolderServer) -> None:
    """One that Python's class has no part in: no line can be told, but its ends."""
    host, port = http.url.removeprefix("http://").split(":")
    with leaking("socket", made_here=False) as found:
        left = _socket.socket()
        left.connect((host, int(port)))
    assert found[0].what == f"TCP 127.0.0.1:{left.getsockname()[1]} to {host}:{port}"
    assert found[0].made_at is None
    assert "\n\nopened below Python\n" in str(LeakReport(tuple(found)))
    left.close()


def test_a_socket_that_listens() -> None:
    """A server that was not closed, told as such."""
    with leaking("socket") as found:
        server = socket.create_server(("127.0.0.1", 0))
    assert found[0].what == f"TCP 127.0.0.1:{server.getsockname()[1]}, listening"
    server.close()


def test_a_thread() -> None:
    """Not a daemon, nor one that has ended."""
    end = threading.Event()
    with leaking("thread") as found:
        thread = threading.Thread(target=end.wait, name="left over")
        thread.start()
        daemon = threading.Thread(target=end.wait, daemon=True)
        daemon.start()
    assert found[0].what == "left over (Thread)"
    end.set()
    thread.join()
    daemon.join()


def test_an_executor() -> None:
    """Its threads wait for work, and are no daemons."""
    with leaking("thread"):
        executor = concurrent.futures.ThreadPoolExecutor(1)
        executor.submit(int).result()
    executor.shutdown()


def test_the_threads_of_dask() -> None:
    """Its own pool is kept for the whole process, and no leak; an executor that it is given is told."""
    import dask.array

    numbers = dask.array.ones(4, chunks=2)
    with leak_check(grace=0):
        numbers.sum().compute(scheduler="threads")
        numbers.sum().compute(scheduler="threads", num_workers=2)
    with leak_check(on_leak="report", grace=0) as check:
        executor = concurrent.futures.ThreadPoolExecutor(1)
        numbers.sum().compute(scheduler="threads", pool=executor)
    executor.shutdown()
    assert [leak.kind for leak in check.report] == ["thread"]


@LOOPS
def test_a_task(run: Callable[[Awaitable[Any]], Any]) -> None:
    """One that is pending, with the line that made it; not one that is done."""

    async def never() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with leaking("task") as found:
            task = asyncio.ensure_future(never())
            await asyncio.create_task(asyncio.sleep(0))
        assert found[0].what == "test_a_task.<locals>.never"
        assert found[0].loop_state == "running"
        task.cancel()
        async with leak_check():
            cancelled = asyncio.create_task(never())
            cancelled.cancel()

    run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_event_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that was not closed, told as one thing, although it has two sockets."""
    uvloop.new_event_loop().close()  # libuv keeps a pipe for the whole process
    with leaking("event loop") as found:
        loop = new_loop()
    assert found[0].loop is None
    loop.close()


@pytest.mark.leaks
def test_where_the_loop_is_and_what_it_does() -> None:
    """A session on a loop that is paused, and on one that was closed."""

    async def opened() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    loop = asyncio.new_event_loop()
    with leak_check(on_leak="report", grace=0) as check:
        session = loop.run_until_complete(opened())
    assert {(leak.kind, leak.loop_state) for leak in check.report} == {("session", "paused"), ("connector", "paused")}
    with leak_check(on_leak="report", grace=0) as check:
        another = loop.run_until_complete(opened())
        loop.run_until_complete(session.close())
        loop.close()
    assert {(leak.kind, leak.loop_state) for leak in check.report} == {("session", "closed"), ("connector", "closed")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody can close it any more
        del another
        gc.collect()
