"""A server of Google's JSON API for storage, for gcsfs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.servers._handle import BucketServer
from tests.servers._process import run_server

BucketKind = Literal["flat", "hierarchical", "zonal"]

# What a bucket of each kind is created with.
_HIERARCHICAL = {"hierarchicalNamespace": {"enabled": True}}
_SETTINGS: dict[BucketKind, dict[str, Any]] = {
    "flat": {},
    "hierarchical": _HIERARCHICAL,
    "zonal": {**_HIERARCHICAL, "customPlacementConfig": {"dataLocations": ["us-central1-a"]}, "storageClass": "RAPID"},
}


@dataclass(frozen=True, kw_only=True)
class GCSServer(BucketServer):
    """A running server of the JSON API; it speaks no gRPC, over which alone gcsfs asks for the kind of a bucket."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for gcsfs, and for the class that gcsfs registers today.

        That one asks over gRPC for the bucket's type, before each write, and would try for a minute:
        `retry_timeout` (in seconds) makes it give up after one attempt. The plain class ignores it.
        """
        return {"endpoint_url": self.url, "token": "anon", "project": "p", "retry_timeout": 0.05}

    def create_bucket(self, name: str, kind: BucketKind = "flat") -> str:
        """Make an empty bucket; returns its name."""
        body = json.dumps({"name": name, **_SETTINGS[kind]}).encode()
        status, _, answer = self.request("POST", "/storage/v1/b?project=p", body, {"Content-Type": "application/json"})
        if status != 200:
            raise RuntimeError(f"bucket {name!r} could not be created: {status} {answer.decode()}")
        return name


@contextmanager
def gcs_server(*, tls: bool = False, latency: float = 0.0) -> Iterator[GCSServer]:
    """Serve buckets from memory, none at first; each request waits `latency` seconds."""
    with run_server("serve_gcs", {"tls": tls, "latency": latency}) as announced:
        yield GCSServer(
            url=announced["url"],
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            ca_file=Path(announced["ca_file"]) if announced["ca_file"] else None,
        )
