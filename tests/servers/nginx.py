"""nginx as a server of a folder: a second opinion on HTTP, from a server that many people run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.servers._handle import FolderServer
from tests.servers._process import run_server

_NEEDED_MODULES = ("--with-http_dav_module", "--with-http_ssl_module", "--with-http_stub_status_module")


@cache
def nginx_program() -> str | None:
    """The nginx to run; None if there is none that has what is needed here."""
    # Debian installs it where only the superuser's PATH leads.
    program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if program is None:
        return None
    build = subprocess.run([program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return program if all(module in build.stderr for module in _NEEDED_MODULES) else None


def nginx_available() -> bool:
    """Whether `nginx_server` can be used on this machine."""
    return nginx_program() is not None


@contextmanager
def nginx_server(root: Path | None = None, *, tls: bool = False) -> Iterator[FolderServer]:
    """Serve the folder `root`, or else an empty temporary one."""
    program = nginx_program()
    if program is None:
        raise FileNotFoundError("nginx with its DAV, TLS and status modules is not installed")
    config = {"program": program, "root": str(root) if root else None, "tls": tls}
    with run_server("serve_nginx", config) as announced:
        yield FolderServer(
            url=announced["url"],
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            ca_file=Path(announced["ca_file"]) if announced["ca_file"] else None,
            root=Path(announced["root"]),
        )
