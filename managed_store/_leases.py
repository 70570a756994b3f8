"""What a store of a pool holds instead of an owner: the right to use the sessions of an owner that others use too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from managed_store._building import Built
from managed_store._closing import Closing
from managed_store._lifecycle import Drain, State
from managed_store._pooling import Pool, PoolLimits, SharedOwner
from managed_store._recipe import Recipe
from managed_store._sessions import Session
from managed_store._sharing import is_quickly_shared, shared_part
from managed_store._statistics import Statistics
from managed_store._threads import in_helper_thread
from managed_store.errors import StoreClosedError, StoreOpenError

__all__ = ["PROCESS_POOL", "Lease"]

PROCESS_POOL = Pool(PoolLimits(), made_at=None)
"""The pool of the stores that were unpickled in this process. Never closed, but empty when they are idle or gone."""


class Lease:
    """The sessions of one store of a pool.

    Which owner it is, is found out at first use: that imports the backend, which a process that only passes a pickle
    on need not have.

    Parameters
    ----------
    pool : Pool
        Whose sessions they are.
    recipe : Recipe
        That of the store.
    close_timeout : float
        What the store says; the pool's own holds.
    """

    def __init__(self, pool: Pool, recipe: Recipe, *, close_timeout: float) -> None:
        self.recipe = recipe
        self.close_timeout = close_timeout
        self.handles: set[object] = set()
        self.path: str | None = None
        self._pool = pool
        self._owner: SharedOwner | None = None
        nothing: dict[asyncio.AbstractEventLoop, Session] = {}
        self.session_of = nothing.get  # until the owner is found
        self._given_back = False
        pool.leases.add(self)

    @property
    def ended(self) -> bool:
        """Whether the store is closed, or the pool with all its stores."""
        return self._given_back or self._pool.ended

    @property
    def state(self) -> State:
        """How far the sessions are in their life."""
        if self.ended:
            return self._owner.state if self._owner is not None and self._owner.ended else State.CLOSED
        return State.NEW if self._owner is None else self._owner.state

    @property
    def writes(self) -> int:
        """How many writes there have been, of all stores with these sessions."""
        return 0 if self._owner is None else self._owner.writes

    # Sessions

    async def open_session(self) -> Session:
        """The open session of the running loop."""
        try:
            if self._owner is None and not is_quickly_shared(self.recipe):
                await in_helper_thread(self._found_owner)
            return await self._found_owner().open_session()
        except (StoreClosedError, StoreOpenError) as error:
            self._raise_of_this_store(error)

    def built_at_once(self) -> Built:
        """What the session of the running loop has built, or of zarr's loop where none runs; from synchronous code."""
        try:
            return self._found_owner().built_at_once()
        except (StoreClosedError, StoreOpenError) as error:
            self._raise_of_this_store(error)

    def _raise_of_this_store(self, error: StoreClosedError | StoreOpenError) -> NoReturn:
        """Raise an error of the filesystem that many stores share as one of this store."""
        if isinstance(error, StoreClosedError):
            raise self.recipe.closed_error() from None
        raise self.recipe.open_error(error.__cause__ or error) from error.__cause__

    def _found_owner(self) -> SharedOwner:
        owner = self._owner
        if owner is None:
            try:
                recipe, path = shared_part(self.recipe)
            except Exception as error:  # whatever a backend raises when it is imported and asked what a URL says
                raise self.recipe.open_error(error) from error
            owner = self._pool.owner(recipe, self)
            self.path, self._owner, self.session_of = path, owner, owner.session_of
        # Whoever closes says so first, and looks for the owner afterwards: at least one of the two sees the other.
        if self._given_back:
            self._pool.withdraw(self, owner)
            raise self.recipe.closed_error()
        return owner

    def wrote(self, keys: Sequence[str]) -> None:
        """Make a write or delete of `keys` visible to every session at once."""
        if self._owner is not None:
            self._owner.wrote(keys, self.path)

    def listed(self, *, writes_before: int) -> None:
        """Drop what a listing has put into a cache, if something was written while it was under way."""
        if self._owner is not None:
            self._owner.listed(writes_before=writes_before)

    def statistics(self) -> Statistics:
        """What is held now, by all the stores that share these sessions."""
        state, handles = self.state.name.lower(), len(self.handles)
        if self._owner is None:
            return Statistics(state, handles, loops=0, requests_in_flight=0, opened=0, closed=0, forced=0)
        return replace(self._owner.statistics(), state=state, handles=handles)

    # Closing

    def close(self, drain: Drain) -> None:
        """The store is closed, and every handle derived from it. Its sessions are the pool's."""
        if sessions := self._give_back():
            self._closing(sessions, drain).run()

    async def aclose(self, drain: Drain) -> None:
        """Close as `close` does, without blocking the running loop."""
        if sessions := self._give_back():
            await self._closing(sessions, drain).run_async()

    def _give_back(self) -> list[Session]:
        self._given_back = True
        return self._pool.give_back(self, self._owner)

    def _closing(self, sessions: list[Session], drain: Drain) -> Closing:
        return Closing(sessions, drain, timeout=self.close_timeout, what=lambda: repr(self.recipe.redacted_url))

    def release(self, handle: object) -> None:
        """A handle is gone unclosed. Runs on any thread, inside the garbage collector: it waits for nothing."""
        self.handles.discard(handle)
        if not self.handles:
            if self._owner is not None:
                self._owner.handles.discard(self)
            self._pool.release(self)
