"""What becomes of open sessions when the interpreter exits, and in a forked child.

Imported for its side effect: it registers the hooks.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable

from managed_store._closing import Closing
from managed_store._lifecycle import Drain
from managed_store._owners import SessionOwner, owners_with_sessions
from managed_store._sessions import Session

__all__: list[str] = []


def _close_all_at_exit() -> None:
    """Close what is open when the interpreter exits, while zarr's loop still runs, within one budget in all."""
    owners = tuple(owners_with_sessions)
    if not owners:
        return
    sessions = [session for owner in owners for session in owner.end()]
    sessions.sort(key=lambda session: session.number, reverse=True)
    names = ", ".join(sorted({repr(owner.recipe.redacted_url) for owner in owners}))
    timeout = max(owner.close_timeout for owner in owners)
    _even_if_it_fails(Closing(sessions, Drain.WRITES, timeout=timeout, what=lambda: names).run)
    for owner in owners:
        _even_if_it_fails(owner.warn)  # where warnings are errors, it raises


def _even_if_it_fails(step: Callable[[], None]) -> None:
    """Go on with the exit after a step that raised, and show what it raised as the interpreter would."""
    try:
        step()
    except Exception:
        sys.excepthook(*sys.exc_info())


def _forget_after_fork() -> None:
    """The child drops what it inherited: the connections are the parent's, and their loops run in no thread here."""
    for owner in tuple(owners_with_sessions):
        for session in owner.forget_sessions():
            _inherited.append(session)
            _even_if_it_fails(session.close_copies)


# Sessions of the parent process, held for ever in a child: collecting them would touch the parent's connections.
_inherited: list[Session] = []

# `weakref.finalize` registers its own exit hook when the first one is made. Hooks run last in, first out: made here,
# and with zarr imported by `_owners`, this package's hook runs before both.
weakref.finalize(SessionOwner, lambda: None).detach()
atexit.register(_close_all_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
