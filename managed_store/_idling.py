"""Closing a session when it has been idle for too long, by a timer of its own loop."""

from __future__ import annotations

import weakref
from contextvars import Context

from managed_store._awaiting import running_loop
from managed_store._lifecycle import State
from managed_store._sessions import Session

__all__ = ["IdleTimer"]


class IdleTimer:
    """Closes a session on its loop's thread when no request has been in flight for a while. Keeps nothing alive.

    Parameters
    ----------
    session : Session
        The session, of the running loop.
    max_idle : float
        Seconds without a request.
    """

    def __init__(self, session: Session, max_idle: float) -> None:
        self._session = weakref.ref(session)
        self._loop = weakref.ref(session.loop)
        self._max_idle = max_idle
        self._look_in(max_idle, session)

    def cancel(self) -> None:
        """Look no more. The timers of another loop are not to be touched: that one finds the session closed."""
        loop = self._loop()
        if loop is not None and loop is running_loop():
            self._handle.cancel()

    def _look_in(self, seconds: float, session: Session) -> None:
        # In a context of its own, or the timer would keep what the caller's context variables hold.
        self._handle = session.loop.call_later(seconds, self._look, context=Context())

    def _look(self) -> None:
        session = self._session()
        if session is not None and session.state < State.CLOSING and not session.close_if_idle(self._max_idle):
            self._look_in(self._max_idle - max(0.0, session.idle_for), session)
