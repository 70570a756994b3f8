"""Where a thing was opened: the stack of whoever asked for it, across threads and event loops, without any debug flag.

A session of zarr's is opened on zarr's own loop, where none of the user's code is on the stack. What submits work to
a loop (`call_soon_threadsafe`, and with it `run_coroutine_threadsafe`) and what makes a task runs in a copy of
the submitter's context, and so a context variable carries the submitter's stack along.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

from managed_store.testing._report import Frame, LoopState

__all__ = [
    "Origin",
    "RawFrame",
    "frames_of",
    "loop_state",
    "origin_here",
    "stack_here",
    "started_from",
    "submitted_from",
]

# Code that runs, and the instruction in it: the line is worked out only for what is reported.
RawFrame: TypeAlias = "tuple[CodeType, int]"

# The stack that the running task or callback was submitted from.
submitted_from: ContextVar[tuple[RawFrame, ...]] = ContextVar("managed_store.testing.submitted_from", default=())

# Where threads were started: for what a thread of a library opens, should nobody have submitted it.
started_from: weakref.WeakKeyDictionary[threading.Thread, tuple[RawFrame, ...]] = weakref.WeakKeyDictionary()

# Who made a task: `TaskDetector` knows, also where the task was given a context of its own.
submitter_of: Callable[[Any], tuple[RawFrame, ...]] = lambda task: ()  # noqa: E731  # replaced while a check is on

_OWN = os.path.dirname(__file__)
_LIBRARIES = tuple(
    {
        *(path for name in ("stdlib", "platstdlib", "scripts") if (path := sysconfig.get_paths().get(name))),
        str(Path(__file__).parent.parent),
        "<frozen ",
    }
)

# Where an event loop calls what is its turn; below it is the loop, not who asked for the call.
_TURN = asyncio.Handle._run.__code__

# Frames of libraries that are walked through below the user's, and at all; frames that are kept of a whole stack.
_BEYOND, _DEEPEST, _LONGEST = 8, 100, 150

# Whether a file is a library's: asked for every frame.
_library: dict[str, bool] = {}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who opened a thing, on which thread and loop; the loop is not kept alive."""

    frames: tuple[RawFrame, ...]
    thread: str
    loop: weakref.ref[asyncio.AbstractEventLoop] | None


def origin_here() -> Origin:
    """Return who is opening something now."""
    loop = asyncio._get_running_loop()
    return Origin(stack_here(loop), threading.current_thread().name, None if loop is None else weakref.ref(loop))


def stack_here(loop: asyncio.AbstractEventLoop | None) -> tuple[RawFrame, ...]:
    """Return the code that is running, innermost first, and where it was submitted from if it is not the user's own.

    This is on the way of every task and socket, so it walks no farther than it must: to the turn of the loop where it
    is known who submitted what runs in it, else until the user's own code is a good way behind.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    task = None if loop is None else asyncio.current_task(loop)
    outermost = None if task is None else getattr(task.get_coro(), "cr_frame", None)  # uvloop's turns leave no frame
    submitted = (() if task is None else submitter_of(task)) or submitted_from.get()
    found: list[RawFrame] = []
    library, of_user = _library, False
    beyond = 0  # frames of libraries since the last one of the user's
    while frame is not None:
        code = frame.f_code
        if code is _TURN and submitted:
            break
        found.append((code, frame.f_lasti))
        name = code.co_filename
        if library[name] if name in library else _is_library(name):
            beyond += 1
            if beyond > _BEYOND and (of_user or beyond > _DEEPEST):
                break
        else:
            of_user, beyond = True, 0
        if frame is outermost and submitted:
            break
        frame = frame.f_back
    if not of_user:
        found.extend(submitted or started_from.get(threading.current_thread(), ()))
    if len(found) > _LONGEST:
        del found[_LONGEST // 2 : -_LONGEST // 2]
    return tuple(found)


def frames_of(raw: Iterable[RawFrame]) -> tuple[Frame, ...]:
    """Work out files and lines; the frames of this package that watch are left out."""
    return tuple(
        Frame(code.co_filename, _line(code, instruction), code.co_qualname, _is_library(code.co_filename))
        for code, instruction in raw
        if not code.co_filename.startswith(_OWN)
    )


def loop_state(loop: asyncio.AbstractEventLoop | None) -> LoopState:
    """What a loop is doing; one that has been collected is as good as closed."""
    if loop is None or loop.is_closed():
        return "closed"
    return "running" if loop.is_running() else "paused"


def _line(code: CodeType, instruction: int) -> int:
    position = next(itertools.islice(code.co_positions(), max(instruction, 0) // 2, None), (None,))
    return position[0] or code.co_firstlineno


def _is_library(filename: str) -> bool:
    parts = filename.replace("\\", "/")
    answer = _library[filename] = (
        filename.startswith(_LIBRARIES) or "/site-packages/" in parts or "/dist-packages/" in parts
    )
    return answer
