"""A server of Google's JSON API and of its gRPC services for storage, for what gcsfs registers for ``gs://``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._process import run_server
from tests.servers._statistics import ServerStatistics, fetch_statistics
from tests.servers.gcs import GCSServer


@dataclass(frozen=True, kw_only=True)
class GCSServerWithGRPC(GCSServer):
    """A running server that speaks both; what it counts is both, but where the name says that it is gRPC alone."""

    grpc_ca_file: Path
    grpc_statistics_port: int

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for gcsfs, which gives up after seconds where a client lacks the environment."""
        return {**super().storage_options, "retry_timeout": 5.0}

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs from its start: gRPC reads it once, with the first channel under TLS."""
        return {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(self.grpc_ca_file)}

    def grpc_statistics(self) -> ServerStatistics:
        """The connections of gRPC channels, and the calls on them: a stream is one call."""
        return fetch_statistics(self.grpc_statistics_port)


@contextmanager
def gcs_grpc_server(*, latency: float = 0.0) -> Iterator[GCSServerWithGRPC]:
    """Serve buckets from memory, none at first; each request and call waits `latency` seconds."""
    with run_server("serve_gcs_grpc", {"latency": latency}) as announced:
        yield GCSServerWithGRPC(
            url=announced["url"],
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            grpc_ca_file=Path(announced["grpc_ca_file"]),
            grpc_statistics_port=announced["grpc_statistics_port"],
        )
