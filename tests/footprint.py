"""What this process holds at the level of the operating system: sockets, descriptors, threads, pending tasks.

An empty stderr proves nothing about leaks: with today's versions most leaking programs are silent.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import asdict, dataclass

import psutil
from zarr.core.sync import loop as zarr_loops

__all__ = ["Footprint"]


@dataclass(frozen=True)
class Footprint:
    """Counts of one moment.

    Attributes
    ----------
    sockets : int
        TCP sockets that are connected or half closed; none that listens.
    descriptors : int
        Open file descriptors.
    threads : int
        Non-daemon threads, but for the default executors of event loops: those belong to the loops.
    tasks : int
        Unfinished tasks of zarr's loop.
    """

    sockets: int
    descriptors: int
    threads: int
    tasks: int

    @classmethod
    def now(cls) -> Footprint:
        """Count, without collecting garbage first."""
        connections = psutil.Process().net_connections(kind="tcp")
        loop = zarr_loops[0]
        return cls(
            sockets=sum(connection.status != psutil.CONN_LISTEN for connection in connections),
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=sum(
                not thread.daemon and not thread.name.startswith("asyncio_") for thread in threading.enumerate()
            ),
            tasks=0 if loop is None else sum(not task.done() for task in asyncio.all_tasks(loop)),
        )

    def grown_by(self, later: Footprint) -> dict[str, int]:
        """What a later footprint has more of (or, negative, less)."""
        return {name: getattr(later, name) - count for name, count in asdict(self).items()}
