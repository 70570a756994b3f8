"""Notes on an exception that is somebody else's, and must come out as it is."""

from __future__ import annotations

import contextlib

__all__ = ["note_on"]


def note_on(error: BaseException, note: str) -> None:
    """Add a note, if the exception takes one: that of a frozen dataclass refuses every attribute, and goes without."""
    with contextlib.suppress(Exception):  # whatever its class raises
        error.add_note(note)
