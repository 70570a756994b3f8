"""A WebHDFS server of a folder, for fsspec's filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._handle import FolderServer
from tests.servers._process import run_server


@dataclass(frozen=True, kw_only=True)
class WebHDFSServer(FolderServer):
    """A running server of WebHDFS, which keeps its connections alive."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for fsspec's filesystem; a URL on this server (`webhdfs://127.0.0.1:<port>/path`) needs none."""
        return {"host": "127.0.0.1", "port": self.port}


@contextmanager
def webhdfs_server(root: Path | None = None, *, latency: float = 0.0) -> Iterator[WebHDFSServer]:
    """Serve the folder `root`, or else an empty temporary one; each request waits `latency` seconds."""
    with run_server("serve_webhdfs", {"root": str(root) if root else None, "latency": latency}) as announced:
        yield WebHDFSServer(
            # Not with http://, by which fsspec would take it for something else.
            url=f"webhdfs://127.0.0.1:{announced['port']}",
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            root=Path(announced["root"]),
        )
