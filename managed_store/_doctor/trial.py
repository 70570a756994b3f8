"""One backend tried: ``python -m managed_store._doctor.trial`` takes a place as JSON, and prints what came of it.

It runs in a process of its own, so that what it counts is what the store under test has opened.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from managed_store._descriptors import is_tcp_socket, open_descriptors
from managed_store.testing import leak_check

__all__ = ["tried", "write_array"]

NUMBERS = list(range(24))


def write_array(store: Any) -> None:
    """Write the array in four chunks."""
    import numpy as np
    import zarr

    array = zarr.create_array(store, shape=(24,), chunks=(6,), dtype="i4")
    array[:] = np.array(NUMBERS, dtype="i4")


def tried(url: str, options: Mapping[str, Any], *, is_written: bool) -> dict[str, Any]:
    """Open and close stores at a place through both of zarr's APIs, and say what is left.

    Parameters
    ----------
    url, options
        The place.
    is_written : bool
        Whether the array is there already; otherwise it is written first.

    Returns
    -------
    dict
        ``error``: what went wrong, or None; ``seconds``; ``left``: one line for each thing that is still open.
    """
    import fsspec.asyn

    from managed_store import ManagedStore
    from managed_store._zarr_loop import run_on_zarr_loop

    run_on_zarr_loop(asyncio.sleep(0))  # zarr's IO thread is zarr's, and fsspec's is fsspec's
    fsspec.asyn.get_loop()
    ManagedStore(url, storage_options=dict(options)).close()  # the imports are not what is tried
    before, threads = open_descriptors(), set(threading.enumerate())
    started, error = time.perf_counter(), None
    with leak_check(on_leak="report") as check:
        try:
            if not is_written:
                with ManagedStore(url, storage_options=dict(options)) as store:
                    write_array(store)
            for use in _USES:
                use(lambda: ManagedStore(url, storage_options=dict(options)))
        except Exception as caught:  # whatever a backend raises: it is told, and what is open is counted all the same
            error = f"{type(caught).__name__}: {' '.join(str(caught).split())}"
    seconds = time.perf_counter() - started
    left = [str(leak) for leak in check.report]
    if before is not None:
        more = (open_descriptors() or set()) - before
        sockets = sum(map(is_tcp_socket, more))
        left += [f"{sockets} TCP socket{'s' * (sockets > 1)}"] if sockets else []
        left += [f"{len(more)} file descriptor{'s' * (len(more) > 1)}"] if more else []
    others = [each for each in set(threading.enumerate()) - threads if not each.name.startswith(_THREADS_OF_OTHERS)]
    left += [f"thread {each.name}" for each in others]
    return {"error": error, "seconds": round(seconds, 3), "left": left}


# The default executors of event loops, and zarr's own.
_THREADS_OF_OTHERS = ("asyncio_", "zarr_")


def _synchronous(new_store: Callable[[], Any]) -> None:
    import zarr

    with new_store() as store:
        _check(zarr.open_array(store, mode="r")[:])


def _asynchronous(new_store: Callable[[], Any]) -> None:
    async def main() -> None:
        async with new_store() as store:
            await _read(store)

    asyncio.run(main())


def _on_three_loops(new_store: Callable[[], Any]) -> None:
    """One store on zarr's loop and in two runs."""
    import zarr

    with new_store() as store:
        _check(zarr.open_array(store, mode="r")[:])
        for _ in range(2):
            asyncio.run(_read(store))


_USES = (_synchronous, _asynchronous, _on_three_loops)


async def _read(store: Any) -> None:
    import zarr.api.asynchronous

    array = await zarr.api.asynchronous.open_array(store=store, mode="r")
    _check(await array.getitem(...))


def _check(numbers: Any) -> None:
    if numbers.tolist() != NUMBERS:
        raise ValueError("the array that was read is not the one that was written")


if __name__ == "__main__":
    place = json.load(sys.stdin)
    print(json.dumps(tried(place["url"], place["options"], is_written=place["is_written"])))
