"""Every backend with one and the same small tree on it, and the servers for that: started when first used."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import uuid
import warnings
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from zarr.core.buffer import cpu
from zarr.core.sync import sync

from tests.places import SERVERS, Place, write_folder
from tests.servers._clients import needs, needs_azurite

LARGE = 5 * 2**20 + 1000  # more than any block or part that a backend reads at a time


def content_of(size: int) -> bytes:
    """Bytes of which no part looks like another one nearby; the period is a prime."""
    period = bytes((position * 7 + position // 251) % 256 for position in range(64_019))
    return (period * (size // len(period) + 1))[:size]


SIZES = {"empty": 0, "one": 1, "folder/small": 10, "folder/inner/thousand": 1000, "folder/block": 70_000}
NUMBERS = np.arange(64, dtype="u2").reshape(8, 8)


def sharded() -> dict[str, bytes]:
    """The keys and values of an array of `NUMBERS` in shards, of which zarr reads parts, counted from the end too."""
    written: dict[str, Any] = {}
    array = zarr.create_array(
        written, name="array", shape=(8, 8), chunks=(2, 2), shards=(8, 4), dtype="u2", compressors=None
    )
    array[:] = NUMBERS
    return {key: value.to_bytes() for key, value in written.items() if key.startswith("array/")}


CONTENTS: dict[str, bytes] = {
    **{key: content_of(size) for key, size in SIZES.items()},
    "folder/inner/text": "Größe: 10 µm, 質".encode(),
    "other/large": content_of(LARGE),
    **sharded(),
}
FOLDERS = ("folder", "folder/inner", "other", "array")

PLAIN = ("memory", "file", "http", "https", "gs", "s3", "az", "ftp", "sftp", "webdav", "webhdfs", "smb")
CHAINS = (
    *("dir::http", "dir::s3", "simplecache::http", "filecache::http", "blockcache::http", "simplecache::s3"),
    *("filecache::s3", "simplecache::az", "simplecache::ftp", "simplecache::sftp", "zip::http", "zip::file"),
    *("zip::simplecache::http", "tar::http", "tar.gz::http"),
)
REFERENCES = ("reference", "reference::http", "reference::simplecache::http")
EVERY_BACKEND = (*PLAIN, *CHAINS, *REFERENCES)


def zipped(contents: Mapping[str, bytes]) -> bytes:
    """A zip file, one half of the small ones compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for position, (key, content) in enumerate(contents.items()):
            compress = position % 2 and len(content) < LARGE
            archive.writestr(key, content, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)
    return stream.getvalue()


def tarred(contents: Mapping[str, bytes], mode: str) -> bytes:
    """A tar file; `mode` is as for `tarfile.open`."""
    stream = io.BytesIO()
    with tarfile.open(mode=mode, fileobj=stream) as archive:  # type: ignore[call-overload]
        for key, content in contents.items():
            member = tarfile.TarInfo(key)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


class Everything:
    """The servers that have been started, and the tree on each backend, written when it is first asked for.

    Parameters
    ----------
    stack : ExitStack
        Ends the servers.
    folder : Path
        For local files.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._servers: dict[str, Any] = {}
        self._filled: dict[str, Place] = {}

    def server(self, name: str) -> Any:
        """The server `name`."""
        if name not in self._servers:
            server = self._servers[name] = self._stack.enter_context(SERVERS[name]())
            if name in ("gs", "s3", "az"):
                server.create_bucket("bucket")
        return self._servers[name]

    def folder_on(self, backend: str, name: str) -> Path:
        """The folder `name` that a server serves, or the local one."""
        return (self._folder if backend == "file" else Path(self.server(backend).root)) / name

    def plain(self, backend: str, name: str) -> Place:
        """The folder `name` on a backend that is no chain."""
        if backend == "memory":
            return Place(f"memory://{self._folder.name}-{name}")
        if backend == "file":
            return Place(f"file://{self._folder}/{name}")
        server = self.server(backend)
        match backend:
            case "http":
                return Place(f"{server.url}/{name}")
            case "https":
                return Place(f"{server.url}/{name}", {"ssl": server.ssl_context()})
            case "gs" | "s3" | "az":
                return Place(f"{backend}://bucket/{name}", server.storage_options)
            case "webdav":
                return Place(f"webdav://{name}", server.storage_options)
        return Place(f"{server.url}/{name}", server.storage_options)

    def empty(self, backend: str) -> Place:
        """A place of its own, in which nothing is."""
        outer, _, inner = backend.rpartition("::")
        place = self.plain(inner, f"empty-{uuid.uuid4().hex[:8]}")
        if inner in ("webdav", "webhdfs", "ftp", "sftp", "smb"):
            self.folder_on(inner, place.url.rpartition("/")[2]).mkdir()
        return Place(f"{outer}::{place.url}", {inner: place.options}) if outer else place

    def filled(self, backend: str) -> Place:
        """The place on `backend` that holds `CONTENTS`."""
        if backend not in self._filled:
            self._filled[backend] = self._fill(backend)
        return self._filled[backend]

    def _fill(self, backend: str) -> Place:
        outer, _, inner = backend.rpartition("::")
        if backend.startswith("reference"):
            return _fill_references(self, backend)
        if not outer:
            return self._fill_plain(backend)
        if outer.startswith(("zip", "tar")):
            return self._fill_archive(outer, inner)
        place = self.filled(inner)
        if outer == "dir":
            root, _, name = place.url.rpartition("/")
            return Place(f"dir://{name}::{root}", {inner: place.options})
        return Place(f"{outer}::{place.url}", {inner: place.options})

    def _fill_plain(self, backend: str) -> Place:
        place = self.plain(backend, "tree")
        if backend == "memory":
            for key, content in CONTENTS.items():
                fsspec.filesystem("memory").pipe_file(f"/{self._folder.name}-tree/{key}", content)
        elif backend in ("gs", "s3", "az"):
            with place.store() as store, warnings.catch_warnings():
                # gcsfs and adlfs hand more than 1 MiB to aiohttp in one piece.
                warnings.filterwarnings("ignore", "Sending a large body", ResourceWarning)
                for key, content in CONTENTS.items():
                    sync(store.set(key, cpu.Buffer.from_bytes(content)))
        else:
            write_folder(self.folder_on(backend, "tree"), CONTENTS)
        return place

    def _fill_archive(self, outer: str, inner: str) -> Place:
        kind = outer.partition("::")[0]
        name = {"zip": "tree.zip", "tar": "tree.tar", "tar.gz": "tree.tar.gz"}[kind]
        content = zipped(CONTENTS) if kind == "zip" else tarred(CONTENTS, "w:gz" if kind == "tar.gz" else "w")
        self.folder_on(inner, name).write_bytes(content)
        place = self.plain(inner, name)
        options: dict[str, Any] = {inner: place.options}
        if kind == "tar.gz":
            options["tar"] = {"compression": "gzip"}
        return Place(f"{outer.replace('tar.gz', 'tar')}::{place.url}", options)


def _fill_references(everything: Everything, backend: str) -> Place:
    """References of every kind: inline text and base64, whole files, and parts of files, by way of three protocols."""
    http, s3, local = (everything.filled(name) for name in ("http", "s3", "file"))
    everything.folder_on("http", "packed").write_bytes(b"before" + CONTENTS["folder/block"] + b"after")
    references: dict[str, Any] = {
        **{key: [f"{local.url}/{key}"] for key in CONTENTS},
        "empty": "",
        "one": "base64:" + base64.b64encode(CONTENTS["one"]).decode(),
        "folder/small": [f"{http.url}/folder/small"],
        "folder/inner/thousand": [f"{s3.url}/other/large", 0, 1000],
        "folder/inner/text": CONTENTS["folder/inner/text"].decode(),
        "folder/block": [f"{http.url.rpartition('/')[0]}/packed", 6, 70_000],
        "other/large": [f"{s3.url}/other/large"],
    }
    table = {"version": 1, "refs": references}
    options = {"fs": {"http": {}, "s3": s3.options}}
    if backend == "reference":
        return Place("reference://", {"fo": table, **options})
    outer, _, inner = backend.rpartition("::")
    everything.folder_on(inner, "references.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return Place(f"{outer}::{everything.plain(inner, 'references.json').url}", {"reference": options})


_KEY = pytest.StashKey[Everything]()


@pytest.fixture(scope="session")
def everything(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    """The same for all test files that import this fixture: it ends with the test run."""
    if _KEY not in pytestconfig.stash:
        stack = ExitStack()
        pytestconfig.add_cleanup(stack.close)
        pytestconfig.stash[_KEY] = Everything(stack, tmp_path_factory.mktemp("everything"))
    return pytestconfig.stash[_KEY]


def backends(*names: str, scope: Any = None) -> pytest.MarkDecorator:
    """Run a test on each of these backends; with the scope "module", fixtures of that scope can name the backend."""
    return pytest.mark.parametrize(
        "backend", [pytest.param(each, marks=_marks_of(each)) for each in names], scope=scope
    )


def _marks_of(backend: str) -> list[pytest.MarkDecorator]:
    inner = backend.rpartition("::")[2]
    marks = [needs_azurite] if inner == "az" else []
    if backend.startswith("blockcache"):  # fsspec maps a file and forgets it: that warns, and is harmless
        forgotten = r"unclosed file <_io\.(BufferedRandom|FileIO .*mode='rb\+')"
        marks.append(pytest.mark.filterwarnings(f"ignore:{forgotten}:ResourceWarning"))
    return [*marks, needs(*_PACKAGES.get(inner, ()))]


_PACKAGES = {
    "ftp": ("pyftpdlib",),
    "sftp": ("asyncssh", "paramiko"),
    "webdav": ("webdav4", "wsgidav", "cheroot"),
    "webhdfs": ("requests",),
    "smb": ("impacket", "smbprotocol"),
    "az": ("adlfs",),
}


async def listed(names: AsyncIterator[str]) -> list[str]:
    """What a listing gives, sorted: each name as often as it was given."""
    return sorted([name async for name in names])
