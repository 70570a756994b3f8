"""What `webhdfs_server` runs: as much of WebHDFS as fsspec's filesystem asks for, on a folder.

As with Hadoop, bytes are read from and written to the place that a first answer leads to, although that
is the same server here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.servers._aiohttp_server import serve_aiohttp
from tests.servers._child import Announcement, Config, folder_to_serve, run_child

PREFIX = "/webhdfs/v1"
# What a request for bytes carries after it was led on.
LED_ON = "namenoderpcaddress"


class WebHDFSHandler:
    """Answers requests for the files below one folder. It blocks: small files on a local disk are fast."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._operations: dict[tuple[str, str], Callable[[Path, web.BaseRequest, bytes], web.Response]] = {
            ("GET", "OPEN"): self._read,
            ("GET", "GETFILESTATUS"): self._status,
            ("GET", "LISTSTATUS"): self._list,
            ("PUT", "CREATE"): self._create,
            ("POST", "APPEND"): self._append,
            ("PUT", "MKDIRS"): self._make_folder,
            ("PUT", "RENAME"): self._rename,
            ("DELETE", "DELETE"): self._delete,
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        # Not request.read(): that refuses more than 1 MiB.
        body = await request.content.read()
        operation = self._operations.get((request.method, request.query.get("op", "").upper()))
        path = request.path.removeprefix(PREFIX)
        if operation is None or path == request.path or ".." in path.split("/"):
            return _refusal(400, "UnsupportedOperationException", f"{request.method} {request.path_qs}")
        try:
            return operation(self._root / path.strip("/"), request, body)
        except (FileNotFoundError, NotADirectoryError):
            return _refusal(404, "FileNotFoundException", f"File does not exist: {path}")
        except OSError as error:
            return _refusal(500, "IOException", str(error))

    def _read(self, file: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        if file.is_dir() or not file.exists():
            raise FileNotFoundError(file)
        if LED_ON not in request.query:
            return _lead_on(request)
        with open(file, "rb") as stream:
            stream.seek(int(request.query.get("offset", 0)))
            content = stream.read(int(request.query.get("length", -1)))
        return web.Response(body=content, content_type="application/octet-stream")

    def _status(self, path: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        return web.json_response({"FileStatus": _status_of(path)})

    def _list(self, path: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        # Hadoop lists a file too: as itself, under no name.
        found = [_status_of(path)] if path.is_file() else [_status_of(inner, inner.name) for inner in path.iterdir()]
        return web.json_response({"FileStatuses": {"FileStatus": found}})

    def _create(self, file: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        if LED_ON not in request.query:
            return _lead_on(request)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        return web.Response(status=201)

    def _append(self, file: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        if not file.is_file():
            raise FileNotFoundError(file)
        if LED_ON not in request.query:
            return _lead_on(request)
        with open(file, "ab") as stream:
            stream.write(body)
        return web.Response()

    def _make_folder(self, folder: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        folder.mkdir(parents=True, exist_ok=True)
        return web.json_response({"boolean": True})

    def _rename(self, path: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        path.rename(self._root / request.query["destination"].strip("/"))
        return web.json_response({"boolean": True})

    def _delete(self, path: Path, request: web.BaseRequest, body: bytes) -> web.Response:
        existed = path.exists()
        if path.is_dir():
            if request.query.get("recursive") == "true":
                shutil.rmtree(path)
            else:
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
        return web.json_response({"boolean": existed})


def _status_of(path: Path, name: str = "") -> dict[str, Any]:
    status = path.stat()
    folder = path.is_dir()
    return {
        "pathSuffix": name,
        "type": "DIRECTORY" if folder else "FILE",
        "length": 0 if folder else status.st_size,
        "modificationTime": int(status.st_mtime * 1000),
        "accessTime": int(status.st_atime * 1000),
        "permission": oct(status.st_mode & 0o777).removeprefix("0o"),
        "owner": str(os.getuid()),
        "group": str(os.getgid()),
        "replication": 0 if folder else 1,
        "blockSize": 0 if folder else 2**27,
    }


def _lead_on(request: web.BaseRequest) -> web.Response:
    # As the client called it: by name or by address.
    place = request.url.update_query({LED_ON: request.host})
    return web.Response(status=307, headers={"Location": str(place)})


def _refusal(status: int, exception: str, message: str) -> web.Response:
    return web.json_response({"RemoteException": {"exception": exception, "message": message}}, status=status)


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    root = folder_to_serve(config, cleanup)
    return {**serve_aiohttp(WebHDFSHandler(root).answer, config, cleanup), "root": root}


if __name__ == "__main__":
    run_child(serve)
