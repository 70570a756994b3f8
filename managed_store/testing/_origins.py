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
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

from managed_store.testing._report import Frame, LoopState

__all__ = ["RawStack", "code_in", "frames_of", "loop_state", "stack_here", "started_from", "submitted_from"]

# The code that runs, innermost first, each followed by the instruction in it: the lines are worked out only for what
# is reported. It is flat, and a list, because one is made for every task and socket; nobody changes it.
RawStack: TypeAlias = "list[CodeType | int]"

# The stack that the running task or callback was submitted from.
submitted_from: ContextVar[RawStack] = ContextVar("managed_store.testing.submitted_from", default=[])  # noqa: B039

# Where threads were started: for what a thread of a library opens, should nobody have submitted it.
started_from: weakref.WeakKeyDictionary[threading.Thread, RawStack] = weakref.WeakKeyDictionary()

# Who made a task: `TaskDetector` knows, also where the task was given a context of its own.
submitter_of: Callable[[Any], RawStack | None] = lambda task: None  # noqa: E731  # replaced while a check is on

_OWN = os.path.dirname(__file__)
_LIBRARIES = tuple(
    {
        *(path for name in ("stdlib", "platstdlib", "scripts") if (path := sysconfig.get_paths().get(name))),
        str(Path(__file__).parent.parent),
        "<frozen ",
    }
)

_OF_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

# Where an event loop calls what is its turn; below it is the loop, not who asked for the call.
_TURN = asyncio.Handle._run.__code__

# Frames of libraries that are walked through below the user's, and at all; frames that are kept of a whole stack.
_BEYOND, _DEEPEST, _LONGEST = 8, 100, 150

# Whose code a file has: asked for every frame.
_USER, _LIBRARY, _WATCHING, _TEST_RUNNER = range(4)
_whose: dict[str, int] = {}


def stack_here(loop: asyncio.AbstractEventLoop | None) -> RawStack:
    """Return the code that is running, and where it was submitted from if it is not the user's own.

    This is on the way of every task and socket, so it walks no farther than it must: to the turn of the loop where it
    is known who submitted what runs in it, else until the user's own code is a good way behind.
    """
    task = None if loop is None else asyncio.current_task(loop)
    submitted = None if task is None else submitter_of(task)
    if submitted is None:
        submitted = submitted_from.get()
    # uvloop's turns leave no frame: the task's own outermost one says as well where its turn began.
    outermost = getattr(task.get_coro(), "cr_frame", None) if submitted and task is not None else None
    found: RawStack = []
    known, of_user = _whose, False
    beyond = 0  # frames of libraries since the last one of the user's
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        whose = known[name] if name in known else _find_out_whose(name)
        if whose != _WATCHING:
            if code is _TURN and submitted:
                break
            found.append(code)
            found.append(frame.f_lasti)
            if whose == _USER:
                of_user, beyond = True, 0
            else:
                beyond += 1
                farthest = (_BEYOND if whose == _LIBRARY else 0) if of_user else _DEEPEST
                if beyond > farthest:  # the frames of the test runner say nothing
                    break
            if frame is outermost:
                break
        frame = frame.f_back
    if not of_user:
        found += submitted or started_from.get(threading.current_thread(), ())
    if len(found) > 2 * _LONGEST:
        del found[_LONGEST:-_LONGEST]
    return found


def code_in(stack: RawStack, frames: int) -> list[CodeType]:
    """Return the code of the innermost frames."""
    return [code for code in stack[: 2 * frames : 2] if isinstance(code, CodeType)]


def frames_of(stack: RawStack) -> tuple[Frame, ...]:
    """Work out files and lines."""
    return tuple(
        Frame(code.co_filename, _line(code, instruction), code.co_qualname, _find_out_whose(code.co_filename) != _USER)
        for code, instruction in zip(stack[::2], stack[1::2], strict=True)
        if isinstance(code, CodeType) and isinstance(instruction, int)
    )


def loop_state(loop: asyncio.AbstractEventLoop | None) -> LoopState:
    """What a loop is doing; one that has been collected is as good as closed."""
    if loop is None or loop.is_closed():
        return "closed"
    return "running" if loop.is_running() else "paused"


def _line(code: CodeType, instruction: int) -> int:
    position = next(itertools.islice(code.co_positions(), max(instruction, 0) // 2, None), (None,))
    return position[0] or code.co_firstlineno


def _find_out_whose(filename: str) -> int:
    # A script may have been started by a link, or by a way that goes up and down.
    paths = (filename,) if filename.startswith("<") else (filename, os.path.realpath(filename))
    if filename.startswith(_OWN):
        whose = _WATCHING
    elif f"{os.sep}_pytest{os.sep}" in filename:
        whose = _TEST_RUNNER
    elif any(path.startswith(_LIBRARIES) or any(folder in path for folder in _OF_PACKAGES) for path in paths):
        whose = _LIBRARY
    else:
        whose = _USER
    _whose[filename] = whose
    return whose
