"""Sockets, as the operating system counts them: one that was collected, and thereby closed, is not open."""

from __future__ import annotations

import _socket
import os
import socket
import stat
import sys
from collections.abc import Iterator
from typing import Any

from managed_store.testing._detectors._detector import Detector, Found, Mark, Seen
from managed_store.testing._opened import Record, number
from managed_store.testing._origins import code_in
from managed_store.testing._patches import Patches
from managed_store.testing._report import Leak

__all__ = ["SocketDetector", "connections"]

# The descriptors of this process, on Linux; Python's own sockets are all that is known elsewhere.
_DESCRIPTORS = "/proc/self/fd"

# What opens sockets below Python. Where none of it is loaded, and there are as many descriptors as before, no socket
# was opened but by Python, which is noticed.
_BELOW_PYTHON = ("grpc", "uvloop", "pycurl", "psycopg_c", "psycopg2", "zmq", "obstore")

# Who keeps sockets for the whole process: a loop its own pair, which goes with it, and gRPC that of its poller.
_PAIR_OF_A_LOOP = "_make_self_pipe"
_PAIR_OF_GRPC = f"{os.sep}grpc{os.sep}"


class SocketDetector(Detector):
    """Every socket whose inode was not there before."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Seen | None = None

    def install(self, patches: Patches) -> None:
        patches.notice(socket.socket, "__init__", self._note)

    def seen(self, *, quickly: bool) -> Seen:
        """What is open now; quickly, what was at the last look, if no socket was noticed since."""
        seen = self._seen
        if seen is None or self.opened.last > seen.number or not (quickly or self.is_as(seen)):
            seen, _ = self._look()
        return seen

    def leaks(self, mark: Mark) -> Iterator[Found]:
        now = number()
        noticed = self.opened.since(mark.number) if self.opened.last > mark.number else ()
        records = {each.fileno(): record for record, each in noticed if each.fileno() != -1}
        if not records and self.is_as(mark.seen):
            self._seen = mark.seen._replace(number=now)  # it spares the next check a look
            return
        _, sockets = self._look()
        new = [descriptor for descriptor, inode in sockets.items() if inode not in mark.seen.sockets]
        for descriptor in new if os.path.isdir(_DESCRIPTORS) else records:
            record_of_it = records.get(descriptor)
            ends = _ends(descriptor)
            if ends is None or (record_of_it is None and not ends.startswith("TCP")):
                continue  # closed meanwhile, or of the system's libraries, such as a connection to a name service
            if record_of_it is None:
                yield Leak("socket", ends), None
            elif not _is_of_others(record_of_it, ends):
                yield record_of_it.leak("socket", ends), record_of_it()

    def _note(self, opened: socket.socket) -> None:
        # This is called by the descriptor of `__init__`, and that by `socketpair` if it is a loop that makes its pair.
        pairing = sys._getframe(2).f_back
        if pairing is None or pairing.f_code.co_name != _PAIR_OF_A_LOOP:
            self.opened.note(opened)

    def is_as(self, seen: Seen) -> bool:
        """Whether no socket was opened below Python since then: a look at all takes longer than a small test."""
        return 0 < _count_of_descriptors() == seen.descriptors and sys.modules.keys().isdisjoint(_BELOW_PYTHON)

    def _look(self) -> tuple[Seen, dict[int, int]]:
        now, descriptors, sockets = number(), _count_of_descriptors(), _open_sockets()
        self._seen = Seen(now, descriptors, frozenset(sockets.values()))
        return self._seen, sockets


def connections() -> int:
    """How many sockets of this process are connected over a network, or to this machine itself."""
    return sum(" to " in (_ends(descriptor) or "") for descriptor in _open_sockets())


def _open_sockets() -> dict[int, int]:
    """The sockets of this process: descriptor → inode."""
    found: dict[int, int] = {}
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        names = []
    for name in names:
        try:
            status = os.fstat(int(name))
        except OSError:  # that of the listing itself, or closed meanwhile
            continue
        if stat.S_ISSOCK(status.st_mode):
            found[int(name)] = status.st_ino
    return found


def _count_of_descriptors() -> int:
    """How many descriptors there are: Linux tells since 6.2, in a single call; 0 before."""
    try:
        return os.stat(_DESCRIPTORS).st_size
    except OSError:
        return 0


def _is_of_others(record: Record, ends: str) -> bool:
    return ends.startswith("UNIX") and any(_PAIR_OF_GRPC in code.co_filename for code in code_in(record.stack, 3))


def _ends(descriptor: int) -> str | None:
    """The two ends of a socket, or None if it has been closed."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        duplicate = _socket.socket(fileno=copy)  # not Python's class, whose making is noticed
    except OSError:  # it is another file's by now
        os.close(copy)
        return None
    try:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return f"UNIX {_name_of(duplicate)}" if duplicate.family == socket.AF_UNIX else f"family {duplicate.family}"
        protocol = "TCP" if duplicate.type == socket.SOCK_STREAM else "UDP"
        if protocol == "TCP" and duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"TCP {_address(duplicate.getsockname())}, listening"
        try:
            return f"{protocol} {_address(duplicate.getsockname())} to {_address(duplicate.getpeername())}"
        except OSError:
            return f"{protocol} {_address(duplicate.getsockname())}, not connected"
    finally:
        duplicate.close()


def _name_of(unix: Any) -> str:
    names = []
    for ask in (unix.getsockname, unix.getpeername):
        try:
            names.append(os.fsdecode(ask()))
        except OSError:
            names.append("")
    return next(filter(None, names), "pair")


def _address(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
