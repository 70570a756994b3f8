"""Calls that fsspec makes many at a time, each in a task, and leaves behind when the one who waits for them is gone.

gcsfs goes on to try such a call again, for half a minute, although nobody wants its answer any more.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from managed_store._awaiting import cancelled

__all__ = ["leaving_no_calls"]

T = TypeVar("T")


async def leaving_no_calls(filesystem: Any, call: Coroutine[Any, Any, T]) -> T:
    """Await a call of a method of `filesystem`; where it fails or is given up, end all the calls that it has made."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task])
        return task.result()
    except BaseException:
        await asyncio.sleep(0)  # tasks that have just been made begin
        tasks = [task, *(each for each in asyncio.all_tasks() if _is_call_of(filesystem, each))]
        waiting = [call for each in tasks for frame in _frames(each) for call in _calls(frame)]
        await cancelled(tasks)
        for each in waiting:
            if inspect.getcoroutinestate(each) == inspect.CORO_CREATED:  # its turn never came: Python would complain
                each.close()
        raise


def _is_call_of(filesystem: Any, task: asyncio.Task[Any]) -> bool:
    calls = (call.cr_frame for frame in task.get_stack(limit=1) for call in _calls(frame))
    return any(frame is not None and frame.f_locals.get("self") is filesystem for frame in calls)


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task that waits, from the outermost to where it waits."""
    coroutine: Any = task.get_coro()
    while inspect.iscoroutine(coroutine) and coroutine.cr_frame is not None:
        yield coroutine.cr_frame
        coroutine = coroutine.cr_await


def _calls(frame: FrameType) -> list[Any]:
    """The coroutines that are in the variables of one of fsspec's functions, by themselves or in lists."""
    if frame.f_globals.get("__name__") != "fsspec.asyn":
        return []
    values = [each for value in frame.f_locals.values() for each in (value if isinstance(value, list) else [value])]
    return [value for value in values if inspect.iscoroutine(value)]
