"""The demonstration: what zarr alone leaves open, and what a managed store does.

Each way of reading runs in a fresh process, ``python -m managed_store._demo WAY URL``, so that none pays for another's
imports or inherits its leak.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from managed_store._descriptors import is_tcp_socket, open_descriptors

__all__ = ["demo"]


def demo() -> int:
    """Serve a small hierarchy on 127.0.0.1, read it in three ways, and print what each left open.

    Returns
    -------
    int
        The exit code: 0 if all three could read.
    """
    from managed_store._demo_server import serve_folder

    with tempfile.TemporaryDirectory(prefix="managed-store-demo-") as folder:
        _write_hierarchy(Path(folder) / "demo.zarr")
        with serve_folder(Path(folder)) as server:
            url = f"{server}/demo.zarr"
            print(f"Reading {url}, each way in a process of its own:\n")
            rows = [(title, _in_fresh_process(way, url)) for way, (title, _) in _WAYS.items()]
    print(_table(rows))
    return 0


def _write_hierarchy(path: Path) -> None:
    import numpy as np
    import zarr

    root = zarr.create_group(str(path))
    for name in ("temperature", "pressure"):
        array = root.create_array(name, shape=(64, 64), chunks=(16, 16), dtype="f4")
        array[:] = np.arange(64 * 64, dtype="f4").reshape(64, 64)
    root.create_group("ocean").create_array("salinity", shape=(32,), chunks=(8,), dtype="f4")[:] = 35.0


def _in_fresh_process(way: str, url: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "managed_store._demo", way, url], stdout=subprocess.PIPE, text=True, check=True
    )
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def _read_with_zarr(url: str) -> int:
    import zarr

    group = zarr.open_group(url, mode="r")
    return _members(group)


def _read_managed(url: str) -> int:
    import zarr

    from managed_store import ManagedStore

    with ManagedStore(url) as store:
        return _members(zarr.open_group(store, mode="r"))


def _members(group: Any) -> int:
    group["temperature"][:]
    return len(group.members(max_depth=None))


def _read_managed_async(url: str) -> int:
    import zarr.api.asynchronous

    from managed_store import ManagedStore

    async def main() -> int:
        async with ManagedStore(url) as store:
            group = await zarr.api.asynchronous.open_group(store, mode="r")
            array: Any = await group.getitem("temperature")
            await array.getitem(...)
            return len([member async for member in group.members(max_depth=None)])

    return asyncio.run(main())


_WAYS: dict[str, tuple[str, Callable[[str], int]]] = {
    "zarr": ("zarr alone", _read_with_zarr),
    "with": ("with ManagedStore", _read_managed),
    "async-with": ("async with ManagedStore", _read_managed_async),
}


def _report(way: str, url: str) -> dict[str, Any]:
    """Read in one way, and count what is open afterwards that was not open before."""
    from zarr.core.sync import sync

    from managed_store import ManagedStore

    sync(asyncio.sleep(0))  # zarr's loop stays, whoever uses it
    ManagedStore(url).close()  # the imports are not what is measured
    before = open_descriptors()
    start = time.perf_counter()
    members = _WAYS[way][1](url)
    seconds = time.perf_counter() - start
    left = None if before is None else (open_descriptors() or set()) - before
    return {
        "members": members,
        "seconds": seconds,
        "sessions": _open_sessions(),
        "sockets": None if left is None else sum(map(is_tcp_socket, left)),
        "descriptors": None if left is None else len(left),
    }


def _open_sessions() -> int:
    import aiohttp

    return sum(isinstance(each, aiohttp.ClientSession) and not each.closed for each in gc.get_objects())


def _table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    heads = ("", "members found", "time", "sessions", "sockets", "file descriptors")
    cells = [
        (
            title,
            str(report["members"]),
            f"{report['seconds'] * 1e3:.0f} ms",
            *(
                "unknown" if report[name] is None else str(report[name])
                for name in ("sessions", "sockets", "descriptors")
            ),
        )
        for title, report in rows
    ]
    widths = [max(len(row[column]) for row in (heads, *cells)) for column in range(len(heads))]

    def line(row: tuple[str, ...]) -> str:
        first, *others = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join((first, *others))

    over_left = "  ".join(" " * width for width in widths[:3])
    span = sum(widths[3:]) + 4
    return "\n".join((f"{over_left}  {' left open afterwards '.center(span, '-')}", line(heads), *map(line, cells)))


if __name__ == "__main__":
    print(json.dumps(_report(*sys.argv[1:])))
