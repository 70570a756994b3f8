"""An HTTP(S) server of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers._handle import FolderServer
from tests.servers._process import run_server


@contextmanager
def http_server(root: Path | None = None, *, tls: bool = False, latency: float = 0.0) -> Iterator[FolderServer]:
    """Serve the folder `root`, or else an empty temporary one; each request waits `latency` seconds."""
    config = {"root": str(root) if root else None, "tls": tls, "latency": latency}
    with run_server("serve_http", config) as announced:
        yield FolderServer(
            url=announced["url"],
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            ca_file=Path(announced["ca_file"]) if announced["ca_file"] else None,
            root=Path(announced["root"]),
        )
