"""Running a server of a folder whose clients log in: what FTP, SFTP, WebDAV and SMB have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.servers._handle import AccountServer
from tests.servers._process import run_server

ServerT = TypeVar("ServerT", bound=AccountServer)


@contextmanager
def account_server(handle: type[ServerT], program: str, root: Path | None, **more: Any) -> Iterator[ServerT]:
    """Run `program` over the folder `root`, or else an empty temporary one; `more` is for both it and the handle."""
    account = {"username": "user", "password": "secret"}
    with run_server(program, {"root": str(root) if root else None, **account, **more}) as announced:
        yield handle(
            url=announced["url"],
            port=announced["port"],
            statistics_port=announced["statistics_port"],
            root=Path(announced["root"]),
            **account,
            **more,
        )
