"""The file descriptors of this process, as the operating system counts them."""

from __future__ import annotations

import os
import socket
import stat

__all__ = ["is_tcp_socket", "open_descriptors"]


def open_descriptors() -> set[int] | None:
    """The open file descriptors of this process, or None where the system does not tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return {int(name) for name in os.listdir(folder) if _is_open(int(name))}
    return None


def is_tcp_socket(descriptor: int) -> bool:
    """Whether an open descriptor is a socket of TCP."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.family in (socket.AF_INET, socket.AF_INET6)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:  # the one that listed the folder
        return False
    return True
