"""What a store or a pool holds at one moment: snapshots, imported when the first one is asked for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PoolStatistics", "Statistics"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a store holds at one moment. Immutable, and without secrets.

    Attributes
    ----------
    state : str
        ``"new"``, ``"open"``, ``"closing"`` or ``"closed"``.
    handles : int
        Live handles that share these sessions: the store itself and what zarr derived from it by
        ``with_read_only``.
    loops : int
        Event loops on which a filesystem is open or opening.
    requests_in_flight : int
        Requests that are waiting for an answer now, over all loops.
    opened, closed, forced : int
        Filesystems opened so far, closed gracefully, and cut off.
    """

    state: str
    handles: int
    loops: int
    requests_in_flight: int
    opened: int
    closed: int
    forced: int


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool holds at one moment. Immutable, and without secrets.

    Attributes
    ----------
    state : str
        ``"new"``, ``"open"``, ``"closing"`` or ``"closed"``.
    stores : int
        Stores of the pool that are neither closed nor gone.
    filesystems : int
        Filesystems that are open or opening: at most one for each event loop and set of options.
    loops : int
        Event loops on which they are.
    requests_in_flight : int
        Requests that are waiting for an answer now, over all loops.
    opened, closed, forced : int
        Filesystems opened so far, closed gracefully, and cut off.
    """

    state: str
    stores: int
    filesystems: int
    loops: int
    requests_in_flight: int
    opened: int
    closed: int
    forced: int
