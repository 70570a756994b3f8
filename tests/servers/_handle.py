"""What a test holds while a server runs: plain frozen data, which can be pickled to other processes."""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._statistics import ServerStatistics, fetch_statistics


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that is running in another process."""

    url: str
    """Where it is, without a trailing slash."""
    port: int
    statistics_port: int
    ca_file: Path | None = None
    """With TLS: the certificate authority, for clients to name in `SSL_CERT_FILE`."""

    @property
    def localhost_url(self) -> str:
        """The same server under the name `localhost`."""
        return self.url.replace("127.0.0.1", "localhost")

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec's filesystem for this server must be given."""
        return {}

    def statistics(self) -> ServerStatistics:
        """All figures of one moment."""
        return fetch_statistics(self.statistics_port)

    def connections(self) -> int:
        """The number of client connections that the server sees open now."""
        return self.statistics().connections

    def opened(self) -> int:
        """The number of client connections opened since the server started."""
        return self.statistics().opened

    def requests(self) -> int:
        """The number of requests received since the server started."""
        return self.statistics().requests

    def wait_for_connections(self, expected: int, *, timeout: float = 10.0) -> int:
        """Wait until the server sees `expected` open connections; returns what it saw last.

        A client's close takes a moment to arrive. This blocks: where the client's own event loop must
        run for that, call it in another thread. `timeout` is in seconds.
        """
        deadline = time.monotonic() + timeout
        while (seen := self.connections()) != expected and time.monotonic() < deadline:
            time.sleep(0.002)
        return seen

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own, closed at once: status, headers in lower case, body."""
        connection: http.client.HTTPConnection
        if self.ca_file is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.ssl_context())
        try:
            connection.request(method, path, body, {"Connection": "close", **(headers or {})})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def ssl_context(self) -> ssl.SSLContext:
        """A context that trusts this server."""
        return ssl.create_default_context(cafile=self.ca_file)


@dataclass(frozen=True, kw_only=True)
class FolderServer(RunningServer):
    """A server of the files in a folder."""

    root: Path


@dataclass(frozen=True, kw_only=True)
class AccountServer(FolderServer):
    """A server of the files in a folder, for one user."""

    username: str
    password: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for fsspec's filesystem, with a URL on this server or without one.

        With a URL, what both name must be the same: give it by address, not by `localhost`.
        """
        return {"host": "127.0.0.1", "port": self.port, "username": self.username, "password": self.password}


@dataclass(frozen=True, kw_only=True)
class BucketServer(RunningServer):
    """A server of objects in buckets."""

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket; returns its name."""
        raise NotImplementedError
