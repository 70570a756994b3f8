"""Fixtures: one real server of each kind for the whole run, and a small hierarchy on each."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from managed_store import ManagedStore
from tests.botocore_files import keep_botocore_files
from tests.hierarchy import write_hierarchy
from tests.places import Place, Places
from tests.servers import FolderServer, GCSServer, S3Server, gcs_server, http_server, s3_server

__all__ = ["BACKENDS", "Place", "place_of", "trusting", "write_hierarchy"]

keep_botocore_files()


def pytest_collection_finish() -> None:
    """Let the collections that tests ask for, some thousand, pass over what the imports have made."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """The last collections of pytest and of Python pass over nothing."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """The hierarchy on every backend; servers are started when first asked for."""
    with ExitStack() as stack:
        yield Places(stack, tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="session")
def http() -> Iterator[FolderServer]:
    """An HTTP server of a folder that holds the hierarchy ``data.zarr``."""
    with http_server() as server:
        write_hierarchy(str(server.root / "data.zarr"))
        yield server


@pytest.fixture(scope="session")
def https() -> Iterator[FolderServer]:
    """The same over TLS."""
    with http_server(tls=True) as server:
        write_hierarchy(str(server.root / "data.zarr"))
        yield server


@pytest.fixture(scope="session")
def gcs() -> Iterator[GCSServer]:
    """A GCS server with the hierarchy ``gs://bucket/data.zarr``."""
    with gcs_server() as server:
        server.create_bucket("bucket")
        with ManagedStore("gs://bucket/data.zarr", storage_options=server.storage_options) as store:
            write_hierarchy(store)
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server with the hierarchy ``s3://bucket/data.zarr``."""
    with s3_server() as server:
        server.create_bucket("bucket")
        with ManagedStore("s3://bucket/data.zarr", storage_options=server.storage_options) as store:
            write_hierarchy(store)
        yield server


BACKENDS = ("http", "https", "gs", "s3")


@pytest.fixture
def place(backend: str, request: pytest.FixtureRequest) -> Place:
    """The hierarchy on the server of `backend`, which a test parametrizes with `BACKENDS`."""
    return trusting(place_of(backend, request), request)


def trusting(place: Place, request: pytest.FixtureRequest) -> Place:
    """The place for use within this process: aiohttp has read the environment's certificates when it was imported."""
    if not place.url.startswith("https://"):
        return place
    return replace(place, options={**place.options, "ssl": request.getfixturevalue("https").ssl_context()})


def place_of(backend: str, request: pytest.FixtureRequest, *, by_name: bool = False) -> Place:
    """The hierarchy on the server of `backend`, reached by address or by the name ``localhost``."""
    server = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
    if backend in ("http", "https"):
        environment = {} if server.ca_file is None else {"SSL_CERT_FILE": str(server.ca_file)}
        return Place(f"{server.localhost_url if by_name else server.url}/data.zarr", environment=environment)
    options = server.storage_options
    if by_name:
        options = {**options, "endpoint_url": server.localhost_url}
    return Place(f"{backend}://bucket/data.zarr", options)


@pytest.fixture
def empty_place(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place of its own, empty and writable, on `backend`: also ``memory`` and ``file``."""
    name = f"empty-{uuid.uuid4().hex[:8]}"
    if backend == "memory":
        return Place(f"memory://{name}")
    if backend == "file":
        return Place(f"file://{tmp_path}/{name}")
    place = trusting(place_of(backend, request), request)
    return Place(place.url.replace("data.zarr", name), place.options, place.environment)
