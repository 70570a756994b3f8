"""A filesystem that cannot be built is a StoreOpenError, and what had been opened by then is closed: at once."""

from __future__ import annotations

import gc
import io
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreOpenError
from tests.every_backend import Everything, Place, everything
from tests.servers._clients import needs
from tests.stopping import Held, start_loops

__all__ = ["everything"]  # a fixture

PROTOTYPE = default_buffer_prototype()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """Nothing may depend on a garbage collection."""
    start_loops()
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def broken_zip() -> bytes:
    """A zip file whose table of contents leads nowhere."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("key", b"content")
    content = stream.getvalue()
    table = content.index(b"PK\x01\x02")
    return content[:table] + b"XXXX" + content[table + 4 :]


def left(before: Held, temporary: Path) -> list[object]:
    """What is open now and was not before. A socket on another loop is closed in the next turn of that loop."""
    deadline = time.monotonic() + 0.2
    while (more := before.more(Held.now(temporary))) and time.monotonic() < deadline:
        time.sleep(0.005)
    return more


NO_ARCHIVE = b"this is no archive, " * 100
Make = Callable[[Everything], Place]


def with_options(backend: str, **options: Any) -> Make:
    """The place on `backend` with other options."""

    def make(everything: Everything) -> Place:
        place = everything.plain(backend, "tree")
        return Place(place.url, {**place.options, **options})

    return make


def over(outer: str, inner: str, content: bytes | None, *, name: str, **options: Any) -> Make:
    """A layer over a file with this content, or over one that is not there."""

    def make(everything: Everything) -> Place:
        if content is not None:
            file = everything.folder_on(inner, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        return Place(f"{outer}::{everything.plain(inner, name).url}", options)

    return make


def cache_under_a_file(everything: Everything) -> Place:
    """A cache in a folder that cannot be made, because there is a file of that name."""
    place = over("simplecache", "http", b"content", name="cached")(everything)
    file = everything.folder_on("http", "cached")
    return Place(place.url, {"simplecache": {"cache_storage": f"{file}/below"}})


CASES: dict[str, Make] = {
    "ftp, wrong password": with_options("ftp", password="wrong"),
    "sftp, wrong password": with_options("sftp", password="wrong"),
    "zip over http that is no zip": over("zip", "http", NO_ARCHIVE, name="no.zip"),
    "zip over a file that is no zip": over("zip", "file", NO_ARCHIVE, name="no.zip"),
    "zip over http that is empty": over("zip", "http", b"", name="empty.zip"),
    "zip with a broken table": over("zip", "http", broken_zip(), name="broken.zip"),
    "zip over http that is missing": over("zip", "http", None, name="missing.zip"),
    "zip over ftp that is missing": over("zip", "ftp", None, name="missing.zip"),
    "zip over a cache over http that is no zip": over("zip::simplecache", "http", NO_ARCHIVE, name="no.zip"),
    "zip over a cache over http that is missing": over("zip::simplecache", "http", None, name="missing.zip"),
    "zip in a zip that is missing": over("zip://inner.zip::zip", "http", broken_zip(), name="broken.zip"),
    "tar over http that is no tar": over("tar", "http", NO_ARCHIVE, name="no.tar"),
    "tar over a file that is no tar": over("tar", "file", NO_ARCHIVE, name="no.tar"),
    "tar over http that is missing": over("tar", "http", None, name="missing.tar"),
    "tar that is not compressed as was said": over(
        "tar", "http", NO_ARCHIVE, name="no.tar", tar={"compression": "gzip"}
    ),
    "references over http that are no JSON": over("reference", "http", b"{no JSON", name="no.json"),
    "references over a file that are no JSON": over("reference", "file", b"{no JSON", name="no.json"),
    "references over http that are a list": over("reference", "http", b"[1, 2]", name="list.json"),
    "references over http that are missing": over("reference", "http", None, name="missing.json"),
    "references over a cache that are no JSON": over("reference::simplecache", "http", b"{no JSON", name="no.json"),
    "references with a protocol that nobody knows": over(
        "reference", "http", b'{"version": 1, "refs": {"a": ["nobodyknows://x"]}}', name="unknown.json"
    ),
    "references of which one filesystem cannot be built": over(
        "reference",
        "http",
        b'{"version": 1, "refs": {"a": ["http://127.0.0.1:1/x"], "b": ["ftp://127.0.0.1:1/x"]}}',
        name="refused.json",
        reference={"fs": {"ftp": {"host": "127.0.0.1", "port": 1}}},
    ),
}
MARKS = {"ftp": needs("pyftpdlib"), "sftp": needs("asyncssh", "paramiko")}


def cases() -> list[Any]:
    """The cases, skipped where a package is missing."""
    return [pytest.param(name, marks=[mark for word, mark in MARKS.items() if word in name]) for name in CASES]


@pytest.mark.parametrize("case", cases())
def test_constructor_that_fails(case: str, everything: Everything, temporary: Path) -> None:
    """No socket, thread, descriptor or temporary folder is left, though the error and the store still live."""
    place = CASES[case](everything)
    before = Held.now(temporary)
    with place.store() as store:
        for _ in range(3):
            with pytest.raises(StoreOpenError) as caught:
                sync(store.get("key", PROTOTYPE))
            assert caught.value.__cause__ is not None
            assert left(before, temporary) == []
    assert left(before, temporary) == []


@pytest.mark.parametrize("case", cases())
async def test_constructor_that_fails_on_a_loop_of_the_callers(
    case: str, everything: Everything, temporary: Path
) -> None:
    """The same for an asynchronous caller."""
    place = CASES[case](everything)
    before = Held.now(temporary)
    async with place.store() as store:
        with pytest.raises(StoreOpenError):
            await store.exists("key")
        assert left(before, temporary) == []
    assert left(before, temporary) == []


def test_cache_that_cannot_be_made(everything: Everything, temporary: Path) -> None:
    """Where a cache cannot keep its files, a read is an error and no missing key, and nothing is left."""
    place = cache_under_a_file(everything)
    before = Held.now(temporary)
    with place.store() as store:
        with pytest.raises(Exception) as caught:
            sync(store.get("", PROTOTYPE))
        assert not isinstance(caught.value, (LookupError, ValueError, FileNotFoundError)), repr(caught.value)
    assert left(before, temporary) == []


def test_folder_that_is_missing_is_an_empty_store(everything: Everything, temporary: Path) -> None:
    """`dir` over a folder that is not there: no key is in it, and nothing is left."""
    before = Held.now(temporary)
    with ManagedStore(f"dir://missing::{everything.plain('http', 'nowhere').url}") as store:
        assert sync(store.get("key", PROTOTYPE)) is None
        assert not sync(store.exists("key"))
    assert left(before, temporary) == []


@pytest.mark.parametrize("backend", [pytest.param(name, marks=MARKS[name]) for name in MARKS])
def test_server_that_refuses_a_password_sees_no_connection(backend: str, everything: Everything) -> None:
    """The connection on which the password was refused is closed."""
    server = everything.server(backend)
    seen = server.connections()
    with CASES[f"{backend}, wrong password"](everything).store() as store:
        with pytest.raises(StoreOpenError):
            sync(store.get("key", PROTOTYPE))
        assert server.wait_for_connections(seen) == seen
