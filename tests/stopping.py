"""Servers of a test's own that can be killed or frozen, and what a process must not have more of afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from zarr.core.sync import sync

from tests.every_backend import Everything, Place
from tests.servers import ServerProcessError

# Threads that belong to zarr, fsspec and event loops.
_OTHERS = ("asyncio_", "fsspecIO", "zarr_io", "Thread-")


@dataclass
class Stoppable:
    """A filled place on a backend, and the processes of all its servers."""

    place: Place
    processes: list[psutil.Process]

    def kill(self) -> None:
        """End the servers at once, as a crash would; returns when they are gone."""
        self._signal(signal.SIGKILL)
        psutil.wait_procs(self.processes[1:], timeout=5)
        # Wait until it could be reaped, but leave that to its owner.
        for process in self.processes:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def freeze(self) -> None:
        """Let the servers stop answering, with their connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextmanager
def stoppable(backend: str, folder: Path) -> Iterator[Stoppable]:
    """The place on `backend` that holds `CONTENTS`, on servers that nobody else uses."""
    parent = psutil.Process()
    before = set(parent.children(recursive=True))
    with contextlib.suppress(ServerProcessError), ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(folder))  # a server that is killed does not tidy up
            place = Everything(stack, folder).filled(backend)
        started = Stoppable(place, [each for each in parent.children(recursive=True) if each not in before])
        stack.callback(started.kill)  # a frozen server would not end otherwise
        yield started


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment, as the operating system counts it."""

    sockets: frozenset[tuple[object, ...]]
    threads: frozenset[str]
    descriptors: int
    temporary: frozenset[str]

    @classmethod
    def now(cls, temporary: Path | None = None) -> Held:
        """Look, without collecting garbage."""
        connections = psutil.Process().net_connections(kind="tcp")
        return cls(
            frozenset((each.laddr, each.raddr) for each in connections if each.status != psutil.CONN_LISTEN),
            frozenset(
                f"{each.name} {each.ident}" for each in threading.enumerate() if not each.name.startswith(_OTHERS)
            )
            | frozenset(f"{each} {each.ident}" for each in threading.enumerate() if _is_paramikos(each)),
            len(os.listdir("/proc/self/fd")),
            frozenset(os.listdir(temporary)) if temporary else frozenset(),
        )

    def more(self, later: Held) -> list[object]:
        """What a later moment has more of."""
        more: list[object] = [
            *(later.sockets - self.sockets),
            *(later.threads - self.threads),
            *(later.temporary - self.temporary),
        ]
        if later.descriptors > self.descriptors:
            more.append(f"{later.descriptors - self.descriptors} descriptors")
        return more


def _is_paramikos(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith("paramiko")


def start_loops() -> None:
    """Start the loops of zarr and fsspec, which stay for ever: they are not to be counted."""
    import fsspec.asyn

    sync(asyncio.sleep(0))
    fsspec.asyn.sync(fsspec.asyn.get_loop(), asyncio.sleep, 0)
