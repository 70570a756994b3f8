"""What the plain form of a program shows, and what must be seen of that each time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.matrix import Outcome

__all__ = ["ANOTHER_LOOP", "COLLECTED_OPEN", "ON_ANOTHER_THREAD", "Symptom"]

# What is said of a session that is used on another loop than its own: the first one in development mode.
ANOTHER_LOOP = (
    "Non-thread-safe operation|attached to a different loop|Timeout context manager should be used inside a task"
)

# What gcsfs's finalizer, which runs on whatever thread, says of itself in development mode.
ON_ANOTHER_THREAD = "Non-thread-safe operation|was never awaited|Task was destroyed"

# What is said when a session is collected open; in development mode its connector may be first, and fail.
COLLECTED_OPEN = r"Unclosed client session|BaseConnector\.__del__"


@dataclass(frozen=True)
class Symptom:
    """What is expected of a plain form; with nothing of it, that it is clean.

    Attributes
    ----------
    leaves : int
        The least number of sockets that are open at the last line.
    error : str
        A pattern in the error that the form ends with.
    says : str
        A pattern in what is written to stderr until the process has ended.
    gone : str
        What the threads report besides and is no more, and since which release.
    """

    leaves: int = 0
    error: str = ""
    says: str = ""
    gone: str = ""

    def missing_from(self, outcome: Outcome) -> list[str]:
        """What an outcome shows otherwise than expected, a line for each."""
        sockets = (outcome.grown or {"sockets": -1})["sockets"]
        stderr = "\n".join(outcome.stderr)
        found = []
        if sockets < self.leaves or (sockets and not self.leaves and not self.error):
            found.append(f"{sockets} sockets are left, where {self.leaves or 'none'} was expected")
        if not re.search(self.error, outcome.error or "") or (outcome.error and not self.error):
            found.append(f"the error is {outcome.error!r}, where {self.error!r} was expected")
        if not re.search(self.says, stderr) or (stderr and not self.says and not self.error):
            found.append(f"stderr is {stderr!r}, where {self.says!r} was expected")
        return found

    def uncaught_by(self, watched: Outcome | None) -> list[str]:
        """Whether `leak_check` overlooks what is left open: a line that says so, or none.

        `watched` is the plain form in a `leak_check`, which raises, or adds a note to the error of the form.
        """
        trace = "" if watched is None else watched.trace
        caught = "LeakError" in trace or "The block was left with this error" in trace
        return [] if caught or not self.leaves else [f"leak_check does not catch it: {watched}"]
