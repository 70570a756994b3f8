"""What `http_server` runs: the files of a folder, to read and to write.

Folders end in "/" in the listings. That is how fsspec's HTTP filesystem tells them from files.
"""

from __future__ import annotations

import html
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from tests.servers._aiohttp_server import serve_aiohttp
from tests.servers._child import Announcement, Config, folder_to_serve, run_child
from tests.servers._ranges import UnsatisfiableRangeError, parse_range


class FolderHandler:
    """Answers requests for the files below one folder. It blocks: small files on a local disk are fast."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._prefix = str(self._root)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if ".." in request.path.split("/"):
            return web.Response(status=404)
        match request.method:
            case "GET" | "HEAD":
                return self._read(request)
            # fsspec's put_file posts unless told to put.
            case "PUT" | "POST":
                # Not request.read(): that refuses more than 1 MiB.
                return self._write(request.path, await request.content.read())
            case "DELETE":
                return self._delete(request.path)
            case _:
                return web.Response(status=405, headers={"Allow": "GET, HEAD, PUT, POST, DELETE"})

    def _read(self, request: web.BaseRequest) -> web.Response:
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        try:
            with open(self._prefix + request.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                # RFC 9110 defines ranges for GET alone.
                wanted = parse_range(request.headers.get("Range"), size) if request.method == "GET" else None
                if wanted is None:
                    return web.Response(body=file.read(), headers=headers)
                file.seek(wanted.start)
                body = file.read(wanted.stop - wanted.start)
        except IsADirectoryError:
            return self._index(request.path)
        except (FileNotFoundError, NotADirectoryError):
            return web.Response(status=404)
        except UnsatisfiableRangeError:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = wanted.content_range(size)
        return web.Response(status=206, body=body, headers=headers)

    def _index(self, path: str) -> web.Response:
        with os.scandir(self._prefix + path) as entries:
            names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries)
        # Absolute links mean the same whether or not the folder was asked for with its slash.
        base = quote(path.rstrip("/") + "/")
        links = "".join(f'<a href="{base}{quote(name)}">{html.escape(name)}</a>\n' for name in names)
        return web.Response(text=f"<html><body><pre>\n{links}</pre></body></html>\n", content_type="text/html")

    def _write(self, path: str, body: bytes) -> web.Response:
        file = Path(self._prefix + path)
        existed = file.exists()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        except (IsADirectoryError, NotADirectoryError, FileExistsError):
            return web.Response(status=409)
        return web.Response(status=204 if existed else 201)

    def _delete(self, path: str) -> web.Response:
        file = Path(self._prefix + path)
        try:
            file.unlink()
        except (IsADirectoryError, NotADirectoryError, FileNotFoundError, PermissionError):
            return web.Response(status=404)
        # As in an object store, a folder exists only while something is in it.
        with suppress(OSError):
            for folder in file.parents:
                if folder == self._root:
                    break
                folder.rmdir()
        return web.Response(status=204)


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    root = folder_to_serve(config, cleanup)
    return {**serve_aiohttp(FolderHandler(root).answer, config, cleanup), "root": root}


if __name__ == "__main__":
    run_child(serve)
