"""Run a blocking call in a thread of its own and await it.

Not `asyncio.to_thread`: that leaves a worker in the loop's default executor, which on zarr's loop lives until the
interpreter exits, and a call that hangs there would keep the interpreter from exiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_helper_thread"]

T = TypeVar("T")


async def in_helper_thread(call: Callable[[], T], *, discard: Callable[[T], None]) -> T:
    """Run `call` in a thread of its own, with the caller's context variables, and return what it returns.

    Parameters
    ----------
    call : callable
        The blocking call.
    discard : callable
        Given the result if nobody waits for it any more, because the caller was cancelled or the loop has ended.
        Runs in the helper thread or on the loop; must not raise.

    Returns
    -------
    T
        What `call` returned.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[T] = loop.create_future()

    def deliver(result: T) -> None:
        if arrived.done():  # the caller was cancelled
            discard(result)
        else:
            arrived.set_result(result)

    def deliver_error(error: BaseException) -> None:
        if isinstance(error, StopIteration):  # the one exception that no future takes
            stopped, error = error, RuntimeError("the call raised StopIteration")
            error.__cause__ = stopped
        if not arrived.done():
            arrived.set_exception(error)

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # carried over to the caller, whatever it is
            try:
                loop.call_soon_threadsafe(deliver_error, error)
            except RuntimeError:  # the loop is closed, so nobody can be waiting
                pass
            return
        try:
            loop.call_soon_threadsafe(deliver, result)
        except RuntimeError:
            discard(result)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="managed-store-open", daemon=True)
    thread.start()
    try:
        return await arrived
    except asyncio.CancelledError:
        # The result can have arrived in the very turn in which the caller was cancelled: it would be lost.
        if arrived.done() and not arrived.cancelled() and arrived.exception() is None:
            discard(arrived.result())
        raise
    finally:
        if arrived.done() and not arrived.cancelled():
            thread.join()  # its last statement has run: this waits microseconds, and leaves no thread behind
