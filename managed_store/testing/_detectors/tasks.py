"""Tasks, and the submitters whose stacks they and what they open are known by."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextvars import Context
from types import ModuleType
from typing import Any

from managed_store.testing import _origins
from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._origins import RawStack, stack_here, submitted_from
from managed_store.testing._patches import Patches

__all__ = ["TaskDetector"]


class TaskDetector(Detector):
    """Every task that is not done. A loop's `create_task` and `call_soon_threadsafe` hand the stack on."""

    def install(self, patches: Patches) -> None:
        patches.set(_origins, "submitter_of", self.opened.stack_of)
        self._patch(patches, asyncio.BaseEventLoop)
        patches.when_imported("uvloop", lambda module: self._patch(patches, _loop_of(module)))

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, task in self.opened.since(mark.number):
            if not task.done() and not (loop := task.get_loop()).is_closed() and not _is_running(task, loop):
                coroutine = task.get_coro()
                yield record.leak("task", getattr(coroutine, "__qualname__", type(coroutine).__qualname__)), task

    def _patch(self, patches: Patches, loop_class: type) -> None:
        patches.replace(loop_class, "create_task", self._creating)
        patches.replace(loop_class, "call_soon_threadsafe", _submitting)

    def _creating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def create_task(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
            stack = stack_here(asyncio._get_running_loop())
            before = submitted_from.set(stack)
            if kwargs.get("context") is not None:  # that of asyncio.run, for all that is called from its main task
                _set_in(kwargs["context"], stack)
            try:
                task = original(loop, *args, **kwargs)
            finally:
                submitted_from.reset(before)
            self.opened.note_at(task, stack, loop)
            if getattr(task, "_source_traceback", None):
                _take_out_our_frame(task._source_traceback)
            return task

        return create_task


def _submitting(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_soon_threadsafe(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
        before = submitted_from.set(stack_here(asyncio._get_running_loop()))
        try:
            handle = original(loop, *args, **kwargs)
        finally:
            submitted_from.reset(before)
        if getattr(handle, "_source_traceback", None):
            _take_out_our_frame(handle._source_traceback)
        return handle

    return call_soon_threadsafe


def _set_in(context: Context, stack: RawStack) -> None:
    try:
        context.run(submitted_from.set, stack)
    except RuntimeError:  # it is the one that is running here or on another thread: what it has stays
        pass


def _loop_of(uvloop: ModuleType) -> type:
    loop_class: type = uvloop.Loop
    return loop_class


def _is_running(task: Any, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether it is the very task that asks."""
    return asyncio._get_running_loop() is loop and asyncio.current_task(loop) is task


def _take_out_our_frame(stack: Any) -> None:
    """In debug mode asyncio keeps a stack of its own, for its warnings: take the frame of this file out of it."""
    if stack[-1].filename == __file__:
        del stack[-1]
