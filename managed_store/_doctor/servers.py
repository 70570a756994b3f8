"""Where each backend can be tried: in memory, in a folder, or on an embedded server on 127.0.0.1."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from managed_store._demo_server import serve_folder

__all__ = ["BACKENDS", "Backend", "Place", "missing"]


@dataclass(frozen=True)
class Place:
    """Where the array is, or is to be written.

    Attributes
    ----------
    url : str
        Its URL.
    options : mapping
        The storage options for that; no secrets, for there are none.
    is_written : bool
        Whether it is there already.
    environment : mapping
        What the process that tries it needs in its environment.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_written: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Backend:
    """A kind of filesystem.

    Attributes
    ----------
    name : str
        Its protocol.
    needs : tuple of str
        The modules that its filesystem consists of.
    server_needs : tuple of str
        The modules that its server needs.
    serve : callable or None
        Given a folder that holds ``array.zarr``, a context manager that gives a place; None where no server can be had.
    """

    name: str
    needs: tuple[str, ...] = ()
    server_needs: tuple[str, ...] = ()
    serve: Callable[[Path], AbstractContextManager[Place]] | None = None


@contextmanager
def _memory(_folder: Path) -> Iterator[Place]:
    yield Place("memory://managed-store-doctor.zarr")


@contextmanager
def _file(folder: Path) -> Iterator[Place]:
    yield Place(f"file://{folder.as_posix()}/written.zarr")


@contextmanager
def _http(folder: Path) -> Iterator[Place]:
    with serve_folder(folder) as url:
        yield Place(f"{url}/array.zarr", is_written=True)


@contextmanager
def _gcs(folder: Path) -> Iterator[Place]:
    from managed_store._doctor.gcs_server import serve_bucket

    with serve_bucket(folder) as url:
        # The class that gcsfs registers by default would ask for the bucket's type over gRPC, at Google.
        yield Place(
            "gs://bucket/array.zarr",
            {"endpoint_url": url, "token": "anon", "project": "p"},
            is_written=True,
            environment={"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"},
        )


@contextmanager
def _s3(_folder: Path) -> Iterator[Place]:
    from managed_store._doctor.s3_server import serve_buckets

    with serve_buckets() as url:
        files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)  # whoever's are not read
        yield Place("s3://bucket/written.zarr", {"endpoint_url": url, "key": "any", "secret": "any"}, environment=files)


BACKENDS = (
    Backend("memory", serve=_memory),
    Backend("file", serve=_file),
    Backend("http", serve=_http),
    Backend("gs", needs=("gcsfs",), serve=_gcs),
    Backend("s3", needs=("s3fs",), server_needs=("moto", "flask", "werkzeug"), serve=_s3),
    Backend("az", needs=("adlfs",)),
    Backend("sftp", needs=("paramiko",)),
    Backend("webdav", needs=("webdav4",)),
    Backend("smb", needs=("smbprotocol",)),
)


def missing(modules: tuple[str, ...]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]
