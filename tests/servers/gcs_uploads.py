"""A resumable upload: an object that arrives in chunks, over several requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers.gcs_messages import BadMessageError, ContentRange


@dataclass
class ResumableUpload:
    """What has arrived of an object."""

    name: str
    fields: dict[str, Any]
    query: Mapping[str, str]
    """Of the request that began the upload: its conditions hold for the whole of it."""
    received: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def receive(self, chunk: bytes, place: ContentRange) -> None:
        """Add a chunk. Bytes that had arrived before are skipped: the client repeats them after an error."""
        if place.start is not None:
            if place.start > len(self.received):
                raise BadMessageError("a chunk before this one is missing")
            self.received += chunk[len(self.received) - place.start :]
        self.complete = place.total == len(self.received)

    def progress_headers(self) -> dict[str, str]:
        """How far the upload has come; no Range at all means that nothing has arrived."""
        return {"Range": f"bytes=0-{len(self.received) - 1}"} if self.received else {}
