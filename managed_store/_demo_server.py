"""Small HTTP servers, embedded in the demonstration and the doctor: on 127.0.0.1, in a thread, as long as a block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TypeAlias

from aiohttp import web

__all__ = ["Handler", "serve", "serve_folder"]


Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def serve(answer: Handler) -> Iterator[str]:
    """Let `answer` answer every GET, and give the URL of the server."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = float("inf")  # in debug mode it would say which answers took long
    thread = threading.Thread(target=loop.run_forever, name="managed-store-demo-server", daemon=True)
    thread.start()
    try:
        runner = asyncio.run_coroutine_threadsafe(_start(answer), loop).result()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def serve_folder(root: Path) -> Iterator[str]:
    """Serve the files in `root`, with an index page for each folder, and give the URL of `root`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = root / request.match_info["path"]
        if path.is_dir():
            return web.Response(text=_index(path), content_type="text/html")
        if path.is_file():
            return web.FileResponse(path)
        raise web.HTTPNotFound

    with serve(answer) as url:
        yield url


async def _start(answer: Handler) -> web.AppRunner:
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def _index(folder: Path) -> str:
    """Links to what is in the folder; the "/" behind a folder is how fsspec tells it from a file."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    return "".join(f'<a href="{escape(name)}">{escape(name)}</a>\n' for name in names)
