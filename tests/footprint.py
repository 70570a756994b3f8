"""What this process holds at the level of the operating system: sockets, descriptors, threads, pending tasks, files.

An empty stderr proves nothing about leaks: with today's versions most leaking programs are silent.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from dataclasses import asdict, dataclass

import fsspec.asyn
from zarr.core.sync import loop as zarr_loops
from zarr.core.sync import sync

__all__ = ["NOTHING", "Footprint"]

# The threads of others, which may stay: zarr's and fsspec's loops, the default executors of loops and zarr's own, and
# gRPC's poller, which serves the whole process.
_THREADS_OF_OTHERS = ("zarr_io", "fsspecIO", "asyncio_", "zarr_pool")
_GRPC_POLLER = "_poll_wrapper"


@dataclass(frozen=True)
class Footprint:
    """Counts of one moment.

    Attributes
    ----------
    sockets : int
        TCP sockets, but for those that listen.
    descriptors : int
        Open file descriptors.
    threads : int
        Threads, daemons too, but for those that belong to others.
    tasks : int
        Unfinished tasks of zarr's loop and of fsspec's.
    temporary : int
        Files and folders in the folder for temporary files, at any depth, where one was given to be looked at.
    """

    sockets: int
    descriptors: int
    threads: int
    tasks: int
    temporary: int = 0

    @classmethod
    def now(cls, temporary: str | None = None) -> Footprint:
        """Count, without collecting garbage first. `temporary` is a folder that no other process uses."""
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
        loops = (zarr_loops[0], fsspec.asyn.loop[0])
        return cls(
            sockets=sum(_is_connection(descriptor) for descriptor in descriptors),
            descriptors=len(descriptors),
            threads=sum(_is_ours(thread) for thread in threading.enumerate()),
            tasks=sum(not task.done() for loop in loops if loop is not None for task in asyncio.all_tasks(loop)),
            temporary=sum(len(folders) + len(files) for _, folders, files in os.walk(temporary or os.devnull)),
        )

    @classmethod
    def before(cls) -> Footprint:
        """Count for what follows: with zarr's loop running, and nothing left to the garbage collector by others."""
        sync(asyncio.sleep(0))
        gc.collect()
        return cls.now()

    def grown_by(self, later: Footprint) -> dict[str, int]:
        """What a later footprint has more of (or, negative, less)."""
        return {name: getattr(later, name) - count for name, count in asdict(self).items()}


NOTHING = dict.fromkeys(Footprint.__dataclass_fields__, 0)


def _is_ours(thread: threading.Thread) -> bool:
    return (
        thread is not threading.main_thread()
        and not isinstance(thread, threading._DummyThread)  # started by gRPC below Python, which tells of it until 3.12
        and not thread.name.startswith(_THREADS_OF_OTHERS)
        and _GRPC_POLLER not in thread.name
    )


def _is_connection(descriptor: int) -> bool:
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return False
        duplicate = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # closed meanwhile
        return False
    with duplicate:
        return (
            duplicate.family in (socket.AF_INET, socket.AF_INET6)
            and duplicate.type == socket.SOCK_STREAM
            and not duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
