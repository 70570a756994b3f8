"""The small hierarchy on every server; each is started when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from managed_store import ManagedStore
from tests.hierarchy import hierarchy
from tests.servers import (
    azure_server,
    ftp_server,
    gcs_grpc_server,
    gcs_server,
    http_server,
    s3_server,
    sftp_server,
    smb_server,
    webdav_server,
    webhdfs_server,
)

__all__ = ["SERVERS", "Place", "Places", "write_folder"]

SERVERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "http": http_server,
    "https": lambda: http_server(tls=True),
    "gs": gcs_server,
    "gs with gRPC": gcs_grpc_server,
    "s3": s3_server,
    "az": azure_server,
    "ftp": ftp_server,
    "sftp": sftp_server,
    "webdav": webdav_server,
    "webhdfs": webhdfs_server,
    "smb": smb_server,
}


@dataclass(frozen=True)
class Place:
    """Where a store can be opened: a URL on a running server, and the options for it."""

    url: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    environment: dict[str, str] = field(default_factory=dict)
    """What a client program needs in its environment."""
    memory: dict[str, bytes] = field(default_factory=dict)
    """What must be in the memory of the client program."""
    in_cycles: bool = False
    """Whether a failed look-up leaves reference cycles, which hold the store until they are collected."""

    def store(self, **arguments: Any) -> ManagedStore:
        """A new store there."""
        return ManagedStore(self.url, storage_options=self.options, **arguments)


class Places:
    """The hierarchy ``data.zarr`` on each server, and as local files.

    Parameters
    ----------
    stack : ExitStack
        Ends the servers.
    folder : Path
        For local files.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.contents = hierarchy()
        self._stack = stack
        self._folder = folder
        self._servers: dict[str, Any] = {}

    def server(self, name: str) -> Any:
        """The server `name`, with the hierarchy on it."""
        if name not in self._servers:
            server = self._stack.enter_context(SERVERS[name]())
            match name:
                case "gs" | "gs with gRPC":
                    self._fill_gcs(server, "bucket", "flat")
                    if name == "gs with gRPC":
                        self._fill_gcs(server, "zonal", "zonal")
                case "s3":
                    server.create_bucket("bucket")
                    for key, content in self.contents.items():
                        _checked(server.request("PUT", f"/bucket/data.zarr/{key}", content))
                case "az":
                    self._fill_azure(server)
                case _:
                    write_folder(server.root / "data.zarr", self.contents)
            self._servers[name] = server
        return self._servers[name]

    def served(self, name: str, content: bytes) -> str:
        """The URL of a file on the HTTP server."""
        server = self.server("http")
        (server.root / name).write_bytes(content)
        return f"{server.url}/{name}"

    def file(self, name: str, content: bytes) -> Path:
        """A local file."""
        (self._folder / name).write_bytes(content)
        return self._folder / name

    def folder(self, name: str) -> Path:
        """A local folder that holds the hierarchy, if it is called ``data.zarr``."""
        if name == "data.zarr":
            write_folder(self._folder / name, self.contents)
        return self._folder / name

    def _fill_gcs(self, server: Any, bucket: str, kind: Any) -> None:
        server.create_bucket(bucket, kind)
        for key, content in self.contents.items():
            name = f"data.zarr/{key}".replace("/", "%2F")
            _checked(server.request("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", content))

    def _fill_azure(self, server: Any) -> None:
        from azure.storage.blob import ContainerClient

        server.create_container("bucket")
        with ContainerClient.from_connection_string(server.connection_string, "bucket") as client:
            for key, content in self.contents.items():
                client.upload_blob(f"data.zarr/{key}", content)


def _checked(answer: tuple[int, Any, bytes]) -> None:
    if answer[0] != 200:
        raise RuntimeError(f"the server answered {answer[0]}: {answer[2].decode()}")


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the contents into a local folder."""
    for key, content in contents.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)
