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
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, TypeAlias

from managed_store.testing._report import Frame, LoopState

__all__ = ["Origin", "frames_of", "loop_state", "origin_here", "stack_here", "started_from", "submitted_from"]

# Code that runs, and the instruction in it: the line is worked out only for what is reported.
RawFrame: TypeAlias = "tuple[CodeType, int]"

# The stack that the running task or callback was submitted from.
submitted_from: ContextVar[tuple[RawFrame, ...]] = ContextVar("managed_store.testing.submitted_from", default=())

# Where threads were started: for what a thread of a library opens, should nobody have submitted it.
started_from: weakref.WeakKeyDictionary[threading.Thread, tuple[RawFrame, ...]] = weakref.WeakKeyDictionary()

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

# Frames that are kept of one stack, and of a stack with those that it was submitted from.
_DEEPEST, _LONGEST = 80, 120


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
    """Return the code that is running, innermost first, and where it was submitted from if it is not the user's own."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_OWN) and frame.f_back is not None:
        frame = frame.f_back
    outermost = _frame_of_the_task(loop)
    found: list[RawFrame] = []
    turn = None  # how many frames there were up to the turn of the loop
    while frame is not None and len(found) < _DEEPEST:
        if frame.f_code is _TURN and turn is None:
            turn = len(found)
        found.append((frame.f_code, frame.f_lasti))
        if frame is outermost and turn is None:
            turn = len(found)
        frame = frame.f_back  # type: ignore[assignment]
    submitted = submitted_from.get()
    if turn is not None and submitted:
        del found[turn:]
    if submitted and not _any_of_the_user(found):
        found.extend(submitted)
    elif not _any_of_the_user(found):
        found.extend(started_from.get(threading.current_thread(), ()))
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


def _frame_of_the_task(loop: asyncio.AbstractEventLoop | None) -> Any:
    """The outermost frame of the running task: uvloop's turns leave no frame."""
    task = None if loop is None else asyncio.current_task(loop)
    coroutine: Any = None if task is None else task.get_coro()
    return getattr(coroutine, "cr_frame", None)


def _line(code: CodeType, instruction: int) -> int:
    position = next(itertools.islice(code.co_positions(), max(instruction, 0) // 2, None), (None,))
    return position[0] or code.co_firstlineno


def _any_of_the_user(raw: Iterable[RawFrame]) -> bool:
    return any(not _is_library(code.co_filename) for code, _ in raw)


def _is_library(filename: str, known: dict[str, bool] = {}) -> bool:  # noqa: B006  # a cache, on the way of every task
    answer = known.get(filename)
    if answer is None:
        parts = filename.replace("\\", "/")
        answer = known[filename] = (
            filename.startswith(_LIBRARIES) or "/site-packages/" in parts or "/dist-packages/" in parts
        )
    return answer
