"""The state of a store and of its sessions: plain state, no I/O, no asyncio.

A state only ever moves forward, NEW → BUILT → OPEN → CLOSING → CLOSED, and steps may be skipped (a store that was never
used goes from NEW to CLOSED). Each move is one assignment, so it needs no lock: see `Session` and `SessionOwner` for
who may move what.
"""

from __future__ import annotations

import enum

__all__ = ["Drain", "State"]


class State(enum.IntEnum):
    """How far something is in its life. Compared by order: ``state >= State.CLOSING`` means no new requests."""

    NEW = 0
    """Made, and nothing is open yet."""
    BUILT = 1
    """The filesystem is there; what its requests need is not open yet. Only a session has this state."""
    OPEN = 2
    """In use."""
    CLOSING = 3
    """New requests are refused; those in flight may still be finishing."""
    CLOSED = 4
    """Final."""


class Drain(enum.IntEnum):
    """Which requests in flight may finish, within the time to close, before the rest is cut off. In order: how many."""

    NOTHING = 0
    """Nobody can wait: the loop that would have to is the one that asks, or Ctrl-C says so."""
    WRITES = 1
    """An exception, a cancellation or Ctrl-C: the answer to a read is wanted by nobody, a write must end whole."""
    ALL = 2
    """A clean exit."""
