"""Canaries: the very thing that each closer closes is there after a real read, and is closed after leaving.

When a backend is rewritten upstream, so that a closer finds nothing, this fails first, and says what has moved. What a
zonal bucket of gcsfs holds is in ``tests/servers/test_gcs_grpc.py``: gRPC trusts a server from a process's start only.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import fsspec.asyn
import pytest
from zarr.core.sync import loop as zarr_loops

from managed_store import ManagedStore
from tests.places import Places
from tests.test_nothing_left_open import place_for
from tests.uses import read
from tests.variants import VARIANTS

# What is to be watched, by name: each is true while the thing is open.
Watched = dict[str, Callable[[], object]]


def filesystems(store: ManagedStore) -> dict[str, Any]:
    """Every private filesystem of the store on zarr's loop, by the name of its class."""
    session = store._sessions._sessions[zarr_loops[0]]  # type: ignore[index]
    assert session.built is not None
    return {type(each).__name__: each for each in session.built.layer.filesystems()}


def aiohttp_session(filesystem: Any, loop: asyncio.AbstractEventLoop | None) -> Watched:
    session = filesystem._session
    assert session._loop is loop
    return {
        "session": lambda: not session.closed,
        "connections": lambda: session.connector and session.connector._conns,
    }


def http(found: dict[str, Any]) -> Watched:
    return aiohttp_session(found["HTTPFileSystem"], zarr_loops[0])


def http_beneath(found: dict[str, Any]) -> Watched:
    """Called by a synchronous filesystem, and so on fsspec's loop."""
    return aiohttp_session(found["HTTPFileSystem"], fsspec.asyn.loop[0])


def gcs(found: dict[str, Any]) -> Watched:
    filesystem = found.get("ExtendedGcsFileSystem") or found["GCSFileSystem"]
    watched = aiohttp_session(filesystem, zarr_loops[0])
    if "ExtendedGcsFileSystem" in found:
        channel = filesystem._storage_control_client.transport.grpc_channel._channel
        watched["storage-control channel"] = lambda: not channel.closed()
        watched["pool of downloaders"] = lambda: not filesystem._mrd_pool_cache._closed
        watched["executor"] = lambda: not filesystem._memmove_executor._shutdown
    return watched


def s3(found: dict[str, Any], loop: asyncio.AbstractEventLoop | None = None) -> Watched:
    filesystem = found["S3FileSystem"]
    assert filesystem._s3creator is not None
    sessions = filesystem._s3._endpoint.http_session._sessions
    (session,) = sessions.values()
    assert session._loop is (loop or zarr_loops[0])
    return {"session": lambda: not session.closed}


def s3_beneath(found: dict[str, Any]) -> Watched:
    return s3(found, fsspec.asyn.loop[0])


def s3_regions(found: dict[str, Any]) -> Watched:
    creator = found["S3FileSystem"]._s3creator
    clients = [creator._client, *creator._buckets.values()]
    assert len(clients) > 1
    sessions = [session for client in clients for session in client._endpoint.http_session._sessions.values()]
    return {f"session {number}": lambda each=each: not each.closed for number, each in enumerate(sessions)}  # type: ignore[misc]


def azure(found: dict[str, Any]) -> Watched:
    session = found["AzureBlobFileSystem"].service_client._pipeline._transport.session
    assert session is not None
    return {"session": lambda: not session.closed}


def cache(found: dict[str, Any]) -> Watched:
    (name,) = (name for name in found if name.endswith(("CacheFileSystem", "CachingFileSystem")))
    folder = object.__getattribute__(found[name], "storage")[-1]
    return {"temporary folder": lambda: os.path.isdir(folder) and os.listdir(folder)}


def workers(found: dict[str, Any]) -> Watched:
    return {"worker threads": lambda: found["ThreadedFileSystem"].workers.alive}


def archive(found: dict[str, Any]) -> Watched:
    if "ZipFileSystem" in found:
        zipped = found["ZipFileSystem"].zip
        return {"zip": lambda: zipped.fp is not None}
    tarred = found["TarFileSystem"].tar
    return {"tar": lambda: not tarred.closed}


def ftp(found: dict[str, Any]) -> Watched:
    client = found["FTPFileSystem"].ftp
    return {"control connection": lambda: client.sock is not None}


def sftp(found: dict[str, Any]) -> Watched:
    transport = found["SFTPFileSystem"].client.get_transport()
    channel = found["SFTPFileSystem"].ftp.get_channel()
    return {
        "transport": transport.is_active,
        "thread": transport.is_alive,
        "channel": lambda: not channel.closed,
        "socket": lambda: transport.sock.fileno() != -1,
    }


def webdav(found: dict[str, Any]) -> Watched:
    client = found["WebdavFileSystem"].client.http
    return {"client": lambda: not client.is_closed, "connections": lambda: client._transport._pool.connections}


def webhdfs(found: dict[str, Any]) -> Watched:
    adapter = found["WebHDFS"].session.adapters["http://"]
    pools = [adapter.poolmanager.pools.get(key) for key in adapter.poolmanager.pools.keys()]  # noqa: SIM118 - no mapping
    sockets = [each.sock for pool in pools for each in pool.pool.queue if each is not None]
    assert sockets
    return {"connections": lambda: any(each.fileno() != -1 for each in sockets)}


def smb(found: dict[str, Any]) -> Watched:
    import smbclient._pool

    host, port = found["SMBFileSystem"].host, found["SMBFileSystem"].port
    connections = smbclient._pool._SMB_CONNECTIONS
    return {
        "connection": lambda: f"{host.lower()}:{port}" in connections,
        "thread": lambda: any("msg_worker" in thread.name for thread in threading.enumerate()),
    }


CANARIES: dict[str, list[Callable[[dict[str, Any]], Watched]]] = {
    "http": [http], "https": [http], "gs": [gcs], "s3": [s3],
    "s3, cache_regions": [s3_regions], "az": [azure], "reference, JSON": [http], "reference, JSON over http": [http],
    "reference, to http and s3": [http, s3], "reference, parquet": [http], "dir::http": [http], "dir::s3": [s3],
    "simplecache::http": [http_beneath, cache, workers], "filecache::http": [http_beneath, cache, workers],
    "blockcache::http": [http_beneath, cache, workers], "simplecache::s3": [s3_beneath, cache, workers],
    "zip::http": [http_beneath, archive, workers], "zip::simplecache::http": [http_beneath, archive, cache, workers],
    "tar::http": [http_beneath, archive, workers], "ftp": [ftp, workers], "sftp": [sftp, workers],
    "webdav": [webdav, workers], "webhdfs": [webhdfs, workers], "smb": [smb, workers],
    "memory": [workers], "file": [workers],
}  # fmt: skip


def test_every_backend_has_a_canary() -> None:
    elsewhere = {"gs, plain class", "gs, gRPC, flat", "gs, gRPC, zonal"}  # gcsfs chooses its class when it is imported
    assert VARIANTS.keys() - elsewhere == CANARIES.keys()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # fsspec's MMapCache drops the file it has mapped
@pytest.mark.parametrize("variant", CANARIES)
def test_what_is_closed_was_open(variant: str, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing is open after a read, and closed after leaving."""
    place = place_for(variant, places)
    if variant == "https":
        place.options["ssl"] = places.server("https").ssl_context()
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    if place.memory:
        fsspec.filesystem("memory").pipe(place.memory)
    with ManagedStore(place.url, storage_options=place.options) as store:
        read(store)
        found = filesystems(store)
        watched = [item for canary in CANARIES[variant] for item in canary(found).items()]
        assert [name for name, is_open in watched if not is_open()] == []
    assert [name for name, is_open in watched if is_open()] == []
