"""Small steps of asyncio that the standard library has no name for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["all_of", "cancelled", "finished", "retrieve", "run_to_first_pause", "running_loop"]

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that is running on this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all of them at once. As `asyncio.gather`, but where one fails the others do not go on by themselves."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        await cancelled(tasks)
        raise


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def finished(task: asyncio.Task[Any]) -> None:
    """Wait for a task to the end, then pass on a cancellation that came meanwhile. The task bounds its own time."""
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


def retrieve(task: asyncio.Task[None]) -> None:
    """Look at a task's exception, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()


def run_to_first_pause(awaitable: Any) -> None:
    """Run an async generator's step that does not pause, from code that cannot await."""
    try:
        awaitable.send(None)
    except StopIteration:
        pass
