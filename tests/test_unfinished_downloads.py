"""A download into a local cache that breaks off, or is not finished, is never taken for the whole file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.every_backend import content_of
from tests.servers._process import REPOSITORY_ROOT
from tests.timing import at_most

PROTOTYPE = default_buffer_prototype()
CONTENT = content_of(100_000)
HALF = len(CONTENT) // 2
CACHES = ("simplecache", "filecache")


@dataclass
class HalvingServer:
    """A server of one file, which it sends by halves."""

    url: str = ""
    breaks: bool = False
    """Whether to close the connection after the first half."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """What the second half waits for."""
    half_sent: threading.Event = field(default_factory=threading.Event)
    requests: int = 0


@contextmanager
def halving_server() -> Iterator[HalvingServer]:
    """Serve, in threads of the test, until the block ends. Nothing is held back at first."""
    state = HalvingServer()
    state.go_on.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/key" else 404)
            self.send_header("Content-Length", str(len(CONTENT) if self.path == "/key" else 0))
            self.end_headers()
            if self.path != "/key" or self.command == "HEAD":
                return
            state.requests += 1
            self.wfile.write(CONTENT[:HALF])
            self.wfile.flush()
            if state.breaks:
                return
            state.half_sent.set()
            state.go_on.wait(20)
            try:
                self.wfile.write(CONTENT[HALF:])
            except OSError:  # the client has left
                pass

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield state
        finally:
            state.go_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[HalvingServer]:
    with halving_server() as server:
        yield server


def cached(cache: str, server: HalvingServer, folder: Path, **arguments: Any) -> ManagedStore:
    """A store that keeps its copies in `folder`."""
    options = {cache: {"cache_storage": str(folder)}}
    return ManagedStore(f"{cache}::{server.url}", storage_options=options, **arguments)


async def read(store: ManagedStore) -> bytes | None:
    """All of the file."""
    answer = await store.get("key", PROTOTYPE)
    return None if answer is None else answer.to_bytes()


def copies(folder: Path) -> list[int]:
    """The sizes of the files in a cache, without its own table of contents."""
    return [file.stat().st_size for file in folder.iterdir() if file.name != "cache"] if folder.exists() else []


@pytest.mark.parametrize("cache", CACHES)
def test_download_that_breaks_off(cache: str, server: HalvingServer, tmp_path: Path) -> None:
    """It is an error, each time, and leaves no file; when the server has recovered, the whole is read."""
    server.breaks = True
    with cached(cache, server, tmp_path / "cache") as store:
        for request in (None, RangeByteRequest(0, 10), SuffixByteRequest(5)):
            with pytest.raises(Exception) as caught:
                sync(store.get("key", PROTOTYPE, request))
            assert not isinstance(caught.value, (LookupError, ValueError, FileNotFoundError)), repr(caught.value)
            assert copies(tmp_path / "cache") == []
        server.breaks = False
        assert sync(read(store)) == CONTENT
        assert copies(tmp_path / "cache") == [len(CONTENT)]
    with cached(cache, server, tmp_path / "cache") as store:
        asked = server.requests
        assert sync(read(store)) == CONTENT
        assert server.requests == asked  # it came from the cache


@pytest.mark.parametrize("cache", CACHES)
async def test_download_that_is_cut_off_by_closing(cache: str, server: HalvingServer, tmp_path: Path) -> None:
    """Leaving while a download hangs leaves no file that a later store would read."""
    server.go_on.clear()
    async with cached(cache, server, tmp_path / "cache", close_timeout=1) as store:
        reading = asyncio.create_task(read(store))
        assert await asyncio.to_thread(server.half_sent.wait, 5)
        with at_most(1.5):
            await store.aclose()
        with pytest.raises(StoreClosedError):
            await reading
    assert copies(tmp_path / "cache") == []
    server.go_on.set()
    async with cached(cache, server, tmp_path / "cache") as store:
        assert await read(store) == CONTENT


@pytest.mark.parametrize("cache", CACHES)
async def test_download_whose_reader_was_cancelled(cache: str, server: HalvingServer, tmp_path: Path) -> None:
    """The next read, begun while the cancelled one still downloads, gets the whole."""
    server.go_on.clear()
    async with cached(cache, server, tmp_path / "cache") as store:
        reading = asyncio.create_task(read(store))
        assert await asyncio.to_thread(server.half_sent.wait, 5)
        reading.cancel()
        again = asyncio.create_task(read(store))
        await asyncio.sleep(0.1)
        server.go_on.set()
        assert await again == CONTENT
    assert copies(tmp_path / "cache") == [len(CONTENT)]  # the cancelled download has come to its end too


@pytest.mark.parametrize("cache", CACHES)
async def test_two_stores_share_a_cache(cache: str, server: HalvingServer, tmp_path: Path) -> None:
    """While one of them downloads, the other does not see its unfinished file, nor do their own loops."""
    server.go_on.clear()
    async with cached(cache, server, tmp_path / "cache") as first, cached(cache, server, tmp_path / "cache") as second:
        reading = [asyncio.create_task(read(first))]
        assert await asyncio.to_thread(server.half_sent.wait, 5)
        reading.append(asyncio.create_task(read(second)))
        reading.append(asyncio.create_task(asyncio.to_thread(sync, read(first))))
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in reading)
        server.go_on.set()
        assert [answer == CONTENT for answer in await asyncio.gather(*reading)] == [True] * 3
    assert copies(tmp_path / "cache") == [len(CONTENT)]


PROGRAM = """
import sys
from pathlib import Path
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from managed_store import ManagedStore
url, cache, folder = sys.argv[1:]
with ManagedStore(f"{cache}::{url}", storage_options={cache: {"cache_storage": folder}}) as store:
    print("open", flush=True)
    print(len(sync(store.get("key", default_buffer_prototype())).to_bytes()), flush=True)
"""


@pytest.mark.parametrize("cache", CACHES)
async def test_two_processes_share_a_cache(cache: str, server: HalvingServer, tmp_path: Path) -> None:
    """Another process does not see an unfinished download; and one that is killed leaves nothing that is read."""
    server.go_on.clear()
    arguments = [sys.executable, "-c", PROGRAM, server.url, cache, str(tmp_path / "cache")]
    with subprocess.Popen(arguments, cwd=REPOSITORY_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "open\n"
        assert await asyncio.to_thread(server.half_sent.wait, 5)
        async with cached(cache, server, tmp_path / "cache") as store:
            reading = asyncio.create_task(read(store))
            await asyncio.sleep(0.1)
            assert not reading.done()
            process.kill()
            server.go_on.set()
            assert await reading == CONTENT
    async with cached(cache, server, tmp_path / "cache") as store:
        assert await read(store) == CONTENT
