"""What a check has found: plain data, and its readable form. No secret gets in: no header, option or query string."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["KINDS", "Frame", "Kind", "Leak", "LeakReport", "LoopState"]

Kind: TypeAlias = Literal[
    "session", "connector", "client", "channel", "filesystem", "event loop", "socket", "thread", "task"
]
LoopState: TypeAlias = Literal["running", "paused", "closed"]

# What each kind is called in a report, in the order in which it is told: what was left open first of all.
KINDS: dict[str, str] = {
    "filesystem": "fsspec filesystem",
    "client": "aiobotocore client",
    "session": "aiohttp session",
    "connector": "aiohttp connector",
    "channel": "gRPC channel",
    "event loop": "event loop",
    "socket": "socket",
    "thread": "thread",
    "task": "task",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of code that was being run when something was opened.

    Attributes
    ----------
    filename : str
        The file, as the code object names it.
    line : int
        The line in it, from 1.
    function : str
        The qualified name of the function.
    library : bool
        Whether it belongs to the standard library, to an installed package or to managed_store: not to the user.
    """

    filename: str
    line: int
    function: str
    library: bool

    def __str__(self) -> str:
        return f"{_shortened(self.filename)}:{self.line}, in {self.function}"

    @property
    def package(self) -> str:
        """The package that the file belongs to, or the file's own name where none can be told."""
        parts = self.filename.replace("\\", "/").split("/")
        for folder in ("site-packages", "dist-packages"):
            if folder in parts:
                return parts[parts.index(folder) + 1].removesuffix(".py")
        if "managed_store" in parts:
            return "managed_store"
        return parts[-2] if len(parts) > 1 and not parts[-2].startswith("python") else parts[-1].removesuffix(".py")


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing that was opened and not closed.

    Attributes
    ----------
    kind : str
        ``"session"`` or ``"connector"`` (aiohttp), ``"client"`` (aiobotocore), ``"channel"`` (gRPC), ``"filesystem"``
        (fsspec), ``"socket"``, ``"thread"``, ``"task"`` or ``"event loop"``.
    what : str
        What it is: the name of its class; of a socket, its ends.
    stack : tuple of Frame
        The code that opened it, the innermost first. Where that ran on an event loop on behalf of another thread or
        task, what follows is the code that had submitted the work. Empty if it was opened below Python.
    thread : str
        The name of the thread that it was made on.
    loop : str or None
        The event loop that it lives on; None if it was made where none was running.
    loop_state : {"running", "paused", "closed"} or None
        What that loop is doing now: ``"paused"`` is one that is neither running nor closed.
    collected : bool
        Whether Python has collected it since, still unclosed. What it held was torn down then, not closed.
    """

    kind: Kind
    what: str
    stack: tuple[Frame, ...] = ()
    thread: str = ""
    loop: str | None = None
    loop_state: LoopState | None = None
    collected: bool = False

    @property
    def user_stack(self) -> tuple[Frame, ...]:
        """The frames of `stack` that are the user's own code; all, if none is."""
        return tuple(frame for frame in self.stack if not frame.library) or self.stack

    @property
    def library_stack(self) -> tuple[Frame, ...]:
        """The frames of `stack` that the user's own code has called into; all, if none is the user's."""
        return tuple(itertools.takewhile(lambda frame: frame.library, self.stack))

    @property
    def made_at(self) -> str | None:
        """File and line of the user's code that opened it, as ``"file.py:12"``; None if that is not known."""
        return f"{self.user_stack[0].filename}:{self.user_stack[0].line}" if self.stack else None

    def __str__(self) -> str:
        where = f", opened at {self.user_stack[0]}" if self.stack else ""
        return f"{KINDS[self.kind]} {self._described()}{where}"

    def _described(self, *, with_loop: bool = True) -> str:
        loop = "" if self.loop is None or not with_loop else f", on {self.loop}, which is {self.loop_state}"
        return f"{self.what}{loop}{' (collected unclosed)' if self.collected else ''}"


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What a block of code has opened and not closed. True if there is anything; iterates over the leaks.

    Attributes
    ----------
    leaks : tuple of Leak
        One for each thing.
    """

    leaks: tuple[Leak, ...] = ()

    def __iter__(self) -> Iterator[Leak]:
        return iter(self.leaks)

    def __len__(self) -> int:
        return len(self.leaks)

    def __str__(self) -> str:
        if not self.leaks:
            return "nothing was left open"
        return "\n\n".join([self.summary, *self._places()])

    @property
    def summary(self) -> str:
        """One line with the number of each kind."""
        if not self.leaks:
            return "nothing was left open"
        counts: Counter[str] = Counter(leak.kind for leak in self.leaks)
        told = (f"{counts[kind]} {name}{'s' * (counts[kind] > 1)}" for kind, name in KINDS.items() if kind in counts)
        return f"left open: {', '.join(told)}"

    def without(self, *ignore: Callable[[Leak], bool]) -> LeakReport:
        """Leave out what is known.

        Parameters
        ----------
        *ignore : callable
            Given a `Leak`, says whether it is to be left out.

        Returns
        -------
        LeakReport
            The rest.
        """
        return LeakReport(tuple(leak for leak in self.leaks if not any(accepts(leak) for accepts in ignore)))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        return {
            "summary": self.summary,
            "leaks": [{**asdict(leak), "made_at": leak.made_at} for leak in self.leaks],
        }

    def _places(self) -> Iterator[str]:
        """One paragraph for each place of the user's code."""
        places: dict[tuple[Frame, ...], list[Leak]] = {}
        for leak in self.leaks:
            places.setdefault(leak.user_stack, []).append(leak)
        for stack, leaks in places.items():
            lines = [f"opened at {stack[0]}" if stack else "opened below Python"]
            loops = {f"on {leak.loop}, which is {leak.loop_state}" for leak in leaks if leak.loop is not None}
            width = max(len(KINDS[leak.kind]) for leak in leaks)
            order = list(KINDS)
            leaks.sort(key=lambda leak: order.index(leak.kind))
            lines += [f"    {KINDS[leak.kind]:{width}}  {leak._described(with_loop=len(loops) > 1)}" for leak in leaks]
            if len(loops) == 1:
                lines.append(f"  {loops.pop()}")
            packages = dict.fromkeys(frame.package for leak in leaks for frame in reversed(leak.library_stack))
            if packages:
                lines.append(f"  through {', '.join(packages)}")
            lines += [f"  called from {frame}" for frame in stack[1:]]
            yield "\n".join(lines)


def _shortened(filename: str) -> str:
    """The file as seen from the current folder, if it lies below it."""
    try:
        below = os.path.relpath(filename) if os.path.isabs(filename) else filename
    except (OSError, ValueError):  # the current folder is gone, or on another drive
        return filename
    return filename if below.startswith("..") else below
