"""Letting go of gRPC's asynchronous channels. The one place that touches private names of grpc.

``tests/test_closers.py`` and the cells of gs in the matrix fail first when one of them is renamed.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

__all__ = ["HeldChannel", "is_open", "was_lost_in_a_fork"]

# Whether this process has had a channel, and whether its parent had when this process was forked.
_used = _lost = False


def is_open(channel: Any) -> bool:
    """Whether a channel has not been closed; one whose constructor has failed never was open."""
    below = getattr(channel, "_channel", None)
    return below is not None and not below.closed()


def was_lost_in_a_fork() -> bool:
    """Whether gRPC is out of order: its core runs on threads of the parent, and every call would hang or crash."""
    return _lost


def _note_the_fork() -> None:
    global _lost
    _lost = _used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_the_fork)


class HeldChannel:
    """One channel, and every call that was made on it.

    A call that failed lives on with its error, which google.api_core's retries leave in a reference cycle. Until Python
    collects that, it keeps a connection of the closed channel, or has one made again and again.

    Parameters
    ----------
    channel : grpc.aio.Channel
        The channel, open or closed.
    """

    def __init__(self, channel: Any) -> None:
        global _used
        _used = True
        self.channel = channel
        self._calls = _EveryCall(channel._active_calls)
        channel._active_calls = self._calls

    def let_calls_go(self) -> None:
        """Drop what is below the calls that have ended."""
        for call in map(_intercepted, tuple(self._calls.all)):
            if call is not None and call.done():
                call._cython_call = _EndedCall()

    def force(self) -> None:
        """Close the channel without awaiting."""
        for call in tuple(self._calls):
            with contextlib.suppress(RuntimeError):  # on a closed loop: of its tasks, after the call itself
                call.cancel()
        self.channel._channel.close()
        self.let_calls_go()

    def still_open(self) -> bool:
        """Whether the channel has not been closed."""
        return is_open(self.channel)


class _EveryCall(weakref.WeakSet[Any]):
    """The calls under way on a channel, as gRPC keeps them, and in `all` those that have ended too."""

    def __init__(self, calls: weakref.WeakSet[Any]) -> None:
        super().__init__(calls)
        self.all: weakref.WeakSet[Any] = weakref.WeakSet(calls)

    def add(self, item: Any) -> None:
        self.all.add(item)
        super().add(item)


class _EndedCall:
    """In the place of gRPC's own: all that is asked of a call that has ended, by its finalizer."""

    def done(self) -> bool:
        return True


def _intercepted(call: Any) -> Any:
    """The call that an interceptor has made for the one that was asked for; None if it came to none."""
    making = getattr(call, "_interceptors_task", None)
    if making is None:
        return call
    return making.result() if making.done() and not making.cancelled() and making.exception() is None else None
