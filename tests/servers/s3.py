"""A server of S3, by moto, for s3fs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers._handle import BucketServer
from tests.servers._process import run_server


@dataclass(frozen=True, kw_only=True)
class S3Server(BucketServer):
    """A running moto, which keeps its connections alive."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for s3fs. They name no region: with "us-east-1" s3fs could create no bucket."""
        return {"key": "testing", "secret": "testing", "endpoint_url": self.url}

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket; returns its name."""
        status, _, answer = self.request("PUT", f"/{name}")
        if status != 200:
            raise RuntimeError(f"bucket {name!r} could not be created: {status} {answer.decode()}")
        return name


@contextmanager
def s3_server(*, latency: float = 0.0) -> Iterator[S3Server]:
    """Serve buckets from memory, none at first; each request waits `latency` seconds."""
    with run_server("serve_s3", {"latency": latency}) as announced:
        yield S3Server(url=announced["url"], port=announced["port"], statistics_port=announced["statistics_port"])
