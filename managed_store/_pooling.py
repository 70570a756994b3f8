"""The sessions of many stores: one filesystem for each recipe and event loop, closed when idle or with the pool.

Like owners, pools need no lock. Whoever uses an owner says so first, and looks afterwards whether it is still the one;
whoever lets it go takes it out first, and looks afterwards whether somebody uses it: at least one sees the other.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import weakref
from dataclasses import dataclass

from managed_store._closing import Closing, close_in_background, on_its_loop
from managed_store._idling import IdleTimer
from managed_store._lifecycle import Drain, State
from managed_store._never_closed import NeverClosed
from managed_store._owners import SessionOwner
from managed_store._recipe import Recipe
from managed_store._sessions import Session
from managed_store._statistics import PoolStatistics
from managed_store.errors import StoreClosedError

__all__ = ["Pool", "PoolLimits", "SharedOwner"]


@dataclass(frozen=True)
class PoolLimits:
    """What a pool may hold.

    Attributes
    ----------
    close_timeout : float
        Seconds that closing may take in all.
    max_idle : float
        Seconds without a request after which a filesystem is closed.
    max_filesystems : int
        How many filesystems may be open, but for those in use.
    """

    close_timeout: float = 5.0
    max_idle: float = 60.0
    max_filesystems: int = 100


class Pool:
    """Owns the owners of the sessions that many stores share.

    Parameters
    ----------
    limits : PoolLimits
        What it may hold.
    made_at : str or None
        File and line where the user made it; None for the pool of the process, which nobody made and nobody closes.
    """

    def __init__(self, limits: PoolLimits, *, made_at: str | None) -> None:
        self.limits = limits
        self.ended = False
        self.leases: set[object] = set()
        self.is_held = made_at is not None  # whether the user still has it
        self.closes_unused = made_at is None
        self.opened = self.closed = self.forced = 0
        self._never_closed = NeverClosed(made_at)
        self._owners: weakref.WeakValueDictionary[Recipe, SharedOwner] = weakref.WeakValueDictionary()
        # Also those that another thread's took the place of, when both were made at once: by number.
        self._every_owner: weakref.WeakValueDictionary[int, SharedOwner] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()

    def owner(self, recipe: Recipe, lease: object) -> SharedOwner:
        """The owner of the sessions of a recipe; `lease` is one more that uses them.

        Raises
        ------
        StoreClosedError
            The pool is closed.
        """
        while True:
            owner = self._owners.get(recipe)
            if owner is None:
                owner = SharedOwner(recipe, self)
                self._every_owner[next(self._numbers)] = self._owners[recipe] = owner
            owner.handles.add(lease)
            if self.ended or self._owners.get(owner.recipe) is owner:
                break
            owner.handles.discard(lease)
            # Whoever let it go has seen the lease, perhaps, and left the owner to it.
            close_in_background(self._end_if_unused(owner), self.limits.close_timeout)
        if self.ended:
            owner.handles.discard(lease)
            raise self.closed_error()
        return owner

    def give_back(self, lease: object, owner: SharedOwner | None) -> list[Session]:
        """A store is closed, by hand; return the sessions that are to be closed with it.

        There are none while the user has the pool, which keeps them for others. The pool of the process keeps what
        others use; a pool that the user has dropped ends with the last of its stores.
        """
        self.leases.discard(lease)
        if owner is not None:
            owner.handles.discard(lease)
        if self.is_held:
            return []
        if not self.closes_unused:
            return [] if self.leases else self._end()
        return [] if owner is None else self._end_if_unused(owner)

    def withdraw(self, lease: object, owner: SharedOwner) -> None:
        """A store was closed before it came to use its owner: as `give_back`, but nobody waits."""
        close_in_background(self.give_back(lease, owner), self.limits.close_timeout)

    def _end_if_unused(self, owner: SharedOwner) -> list[Session]:
        """End an owner that no store uses, in the pool that keeps none; return its sessions, which are to be closed."""
        if owner.handles or not self.closes_unused:
            return []
        if self._owners.get(owner.recipe) is owner:
            self._owners.pop(owner.recipe, None)
        return [] if owner.handles else owner.end()

    def sessions(self) -> list[Session]:
        """All sessions, the most recently opened first."""
        sessions = [session for owner in self._all_owners() for session in owner.sessions()]
        return sorted(sessions, key=lambda session: session.number, reverse=True)

    def make_room(self, made: Session) -> None:
        """Close the sessions that have been idle for longest, should there be too many with the one just made."""
        others = [each for each in self.sessions() if each.state < State.CLOSING and each is not made]
        surplus = len(others) + 1 - self.limits.max_filesystems
        if surplus > 0:
            idle = sorted((each for each in others if each.idle_for >= 0), key=lambda each: -each.idle_for)
            for each in idle[:surplus]:
                # A loop that is paused does it when it runs again: it may do so at any moment, and use the session.
                if not each.asked_to_close:
                    each.asked_to_close = True
                    on_its_loop(each, each.close_if_idle)

    # Closing

    def close(self, drain: Drain) -> None:
        """Close every session, and wait for that, as an owner does."""
        self._closing(drain).run()

    async def aclose(self, drain: Drain) -> None:
        """Close every session, and wait for that without blocking the running loop."""
        await self._closing(drain).run_async()

    async def aclose_sessions(self, timeout: float) -> None:
        """Close every session, in `timeout` seconds; the pool stays open, and opens others when they are asked for."""
        await Closing(self.sessions(), Drain.ALL, timeout=timeout, what=lambda: self.name).run_async()

    def _closing(self, drain: Drain) -> Closing:
        return Closing(self._end(), drain, timeout=self.limits.close_timeout, what=lambda: self.name)

    def _end(self) -> list[Session]:
        self.ended = True
        for owner in self._all_owners():
            owner.ended = True
        return self.sessions()

    def let_go(self) -> None:
        """The user has dropped the pool. Runs inside the garbage collector, as `release` does."""
        self.is_held = False
        self._close_if_forgotten()

    def release(self, lease: object) -> None:
        """A lease is gone. Runs on any thread, inside the garbage collector: it waits for nothing."""
        self.leases.discard(lease)
        self._close_if_forgotten()

    def _close_if_forgotten(self) -> None:
        if self.is_held or self.leases or self.closes_unused:
            return
        was_ended = self.ended
        sessions = self._end()
        close_in_background(sessions, self.limits.close_timeout)
        if sessions and not was_ended:
            self.warn()

    def warn(self) -> None:
        """Warn, once, that the pool was never closed."""
        self._never_closed.warn("A StorePool", self)

    @property
    def name(self) -> str:
        """What is closed, for a message."""
        urls = sorted({owner.recipe.redacted_url for owner in self._all_owners()})
        return f"a StorePool with filesystems for {', '.join(map(repr, urls))}"

    @property
    def state(self) -> State:
        """How far the pool is in its life."""
        if self.ended:
            return State.CLOSING if self.sessions() else State.CLOSED
        return State.OPEN if self.opened or self.sessions() else State.NEW

    def closed_error(self) -> StoreClosedError:
        """The error for using the pool when it is closed."""
        return StoreClosedError(
            "This StorePool was closed. Closing is final: make a new StorePool, or move this use inside the `with` "
            "block that closed it."
        )

    def statistics(self) -> PoolStatistics:
        """What is held now."""
        sessions = self.sessions()
        return PoolStatistics(
            state=self.state.name.lower(),
            stores=len(self.leases),
            filesystems=len(sessions),
            loops=len({session.loop for session in sessions}),
            requests_in_flight=sum(len(session.requests) for session in sessions),
            opened=self.opened + sum(session.state is not State.NEW for session in sessions),
            closed=self.closed,
            forced=self.forced,
        )

    def _all_owners(self) -> list[SharedOwner]:
        owners = (reference() for reference in self._every_owner.valuerefs())
        return [owner for owner in owners if owner is not None]


class SharedOwner(SessionOwner):
    """The owner of the sessions of one recipe in a pool. Its handles are the leases that use it."""

    def __init__(self, recipe: Recipe, pool: Pool) -> None:
        super().__init__(recipe, close_timeout=pool.limits.close_timeout, made_at=None)
        self._pool = pool
        self._timers: dict[Session, IdleTimer] = {}

    def session(self, loop: asyncio.AbstractEventLoop) -> Session:
        """The session of `loop`, the running one; made if there is none, not yet opened."""
        known = self._sessions.get(loop)
        session = super().session(loop)
        if session is not known:
            if (max_idle := self._pool.limits.max_idle) < math.inf:
                self._timers[session] = IdleTimer(session, max_idle)
            self._pool.make_room(session)
        return session

    def _forget(self, session: Session) -> None:
        super()._forget(session)
        if (timer := self._timers.pop(session, None)) is not None:
            timer.cancel()
        self._pool.opened += session.built is not None
        self._pool.closed += session.built is not None and not session.forced
        self._pool.forced += session.forced

    def forget_sessions(self) -> list[Session]:
        """Give up every session without touching it: in a child process, where they are the parent's."""
        self._timers.clear()
        return super().forget_sessions()

    def warn(self) -> None:
        """Warn, once, that the pool was never closed."""
        self._pool.warn()
