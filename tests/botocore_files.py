"""botocore reads its files anew for each client, among them one of a megabyte; here once in a process.

That is half of what a client costs, and there are some thousand in a run. Only files that botocore does not change once
they are read are kept: the description of a service, to which it does, is read each time.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

__all__ = ["keep_botocore_files"]


def keep_botocore_files() -> None:
    """Keep what botocore reads, if it is installed."""
    if find_spec("botocore") is None:
        return
    from botocore.loaders import JSONFileLoader

    read = JSONFileLoader.load_file
    kept: dict[str, Any] = {}

    def load_file(self: JSONFileLoader, file_path: str) -> Any:
        if "service-2" in file_path:
            return read(self, file_path)
        if file_path not in kept:
            kept[file_path] = read(self, file_path)
        return kept[file_path]

    JSONFileLoader.load_file = load_file
