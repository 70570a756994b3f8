"""The servers that are read from, each with the same hierarchy, and the contenders for it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
import obstore.store
import zarr
from zarr.storage import FsspecStore, ObjectStore

from managed_store import ManagedStore
from managed_store._closers import closer_for
from tests.benchmarks._measuring import Effort
from tests.servers import gcs_server, http_server, s3_server

__all__ = ["ARRAYS", "LARGE_CHUNKS", "SMALL", "Place", "close_plain", "contenders", "place"]

SMALL = 128
"""Numbers in a small chunk, which has 1 KiB."""
ARRAYS = 20
"""Members of the group."""
LARGE_CHUNKS = 8


@dataclass(frozen=True)
class Place:
    """A hierarchy: arrays ``small`` and ``large``, and a group ``many``.

    Attributes
    ----------
    url, options : str, dict
        What fsspec is given.
    key_url : callable
        Returns the URL at which the value of a key can be got by plain HTTP.
    ssl : SSLContext or None
        What is needed for that.
    obstore : callable or str
        Makes obstore's store of the same; or the reason why that is not possible.
    """

    url: str
    options: dict[str, Any]
    key_url: Callable[[str], str]
    ssl: ssl.SSLContext | None
    obstore: Callable[[], Any] | str


def contenders(place: Place) -> dict[str, Any]:
    """Make the stores that are compared."""
    # Listings are cached by neither: what was written meanwhile would be missing from them.
    options = {**place.options, "skip_instance_cache": True, "use_listings_cache": False}
    stores: dict[str, Any] = {
        "managed": ManagedStore(place.url, storage_options=place.options),
        "FsspecStore": FsspecStore.from_url(place.url, storage_options=options),
    }
    if callable(place.obstore):
        stores["ObjectStore"] = ObjectStore(place.obstore())
    return stores


async def close_plain(store: FsspecStore) -> None:
    """Close what nobody else will, on the loop where it was opened."""
    closer = closer_for(store.fs)
    closer.notice()
    await closer.close()


@contextmanager
def place(backend: str, latency: float, effort: Effort) -> Iterator[Place]:
    """Start a server and write the hierarchy."""
    with ExitStack() as stack:
        found = _place(backend, latency, stack)
        with ManagedStore(found.url, storage_options=found.options) as store:
            root = zarr.create_group(store)
            for name, length, count in (("small", SMALL, effort.chunks), ("large", effort.large // 8, LARGE_CHUNKS)):
                array = root.create_array(
                    name, shape=(length * count,), chunks=(length,), dtype="f8", compressors=None, filters=None
                )
                array[:] = np.arange(length * count, dtype="f8") + 1
            many = root.create_group("many")
            for number in range(ARRAYS):
                many.create_array(f"array{number}", shape=(1,), dtype="f8")
        yield found


async def _trusting(context: ssl.SSLContext, **options: Any) -> aiohttp.ClientSession:
    # By the session, and not by an option of each request: fsspec leaves those out when it writes.
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), **options)


def _place(backend: str, latency: float, stack: ExitStack) -> Place:
    server: Any
    if backend in ("http", "https"):
        server = stack.enter_context(http_server(tls=backend == "https", latency=latency))
        url = f"{server.url}/bench.zarr"
        context = server.ssl_context() if backend == "https" else None
        client: Any = {"allow_http": True, "allow_invalid_certificates": True}
        return Place(
            url,
            {} if context is None else {"get_client": partial(_trusting, context)},
            lambda key: f"{url}/{key}",
            context,
            lambda: obstore.store.HTTPStore.from_url(url, client_options=client),
        )
    server = stack.enter_context((gcs_server if backend == "gs" else s3_server)(latency=latency))
    server.create_bucket("bucket")
    if backend == "gs":
        return Place(
            "gs://bucket/bench.zarr",
            server.storage_options,
            lambda key: f"{server.url}/storage/v1/b/bucket/o/{quote(f'bench.zarr/{key}', safe='')}?alt=media",
            None,
            "obstore speaks the XML API, which this server does not",
        )
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"}
    server.request("PUT", "/bucket?policy", json.dumps({"Statement": [anybody]}).encode())
    return Place(
        "s3://bucket/bench.zarr",
        server.storage_options,
        lambda key: f"{server.url}/bucket/bench.zarr/{key}",
        None,
        lambda: obstore.store.S3Store(
            "bucket",
            prefix="bench.zarr",
            endpoint=server.url,
            access_key_id="testing",
            secret_access_key="testing",
            region="us-east-1",
            client_options={"allow_http": True},
        ),
    )
