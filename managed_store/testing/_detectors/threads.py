"""Threads that the interpreter would wait for when it ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

from managed_store._redaction import redacted
from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._origins import code_in, started_from
from managed_store.testing._patches import Patches

__all__ = ["ThreadDetector"]

# The workers of the default executors of event loops, and of zarr's own: they belong to the loops.
_OF_OTHERS = ("asyncio_", "zarr_pool")

_EXECUTOR = "concurrent/futures/thread.py"


class ThreadDetector(Detector):
    """Every thread that was started, is alive, and no daemon."""

    def install(self, patches: Patches) -> None:
        patches.notice(threading.Thread, "start", self._note)

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, thread in self.opened.since(mark.number):
            ours = thread is threading.current_thread()
            if not ours and _is_waited_for(thread) and not (thread.name.startswith(_OF_OTHERS) or _is_of_dask(thread)):
                yield record.leak("thread", f"{redacted(thread.name)} ({type(thread).__qualname__})"), thread

    def _note(self, thread: threading.Thread) -> None:
        stack = self.opened.note(thread).stack
        if not any(_EXECUTOR in code.co_filename for code in code_in(stack, 6)):  # whose workers serve many
            started_from[thread] = stack


def _is_waited_for(thread: threading.Thread) -> bool:
    try:
        return thread.is_alive() and not thread.daemon
    except AssertionError:  # its class does not call the constructor of Thread: it has not started
        return False


def _is_of_dask(thread: threading.Thread) -> bool:
    """Whether dask keeps it for the whole process; not one of an executor that dask was given."""
    dask = sys.modules.get("dask.threaded")
    if dask is None:
        return False
    kept = [dask.default_pool, *(pool for of_one_thread in dask.pools.values() for pool in of_one_thread.values())]
    return any(thread in getattr(pool, "_threads", ()) for pool in kept)
