"""One filesystem on one event loop: opened there, drained there, closed there.

Everything that changes a session happens on the thread of its loop, so a session needs no lock. Other threads have the
loop call `Session.close_soon`; only when it is closed or paused do they call `Session.cut_off` themselves.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import NoReturn

from managed_store._awaiting import finished, retrieve
from managed_store._building import Built, build
from managed_store._closers import closer_of
from managed_store._holding import Holding
from managed_store._lifecycle import Drain, State
from managed_store._loop_end import EndOfLoop, is_ending
from managed_store._recipe import Recipe
from managed_store._requests import RequestsInFlight
from managed_store._threads import in_helper_thread
from managed_store._wrapped import WrappedFsspecStore, wrap
from managed_store.errors import ManagedStoreError

__all__ = ["Session"]

_logger = logging.getLogger("managed_store")

# Sessions are numbered in the order in which they are made.
_numbers = itertools.count()

# How many paths of one filesystem are kept wrapped: a service may open any number of them, one after the other.
_MOST_WRAPPED = 128

# Of the time to close, this part is kept for closing itself when draining takes all it may; at most these seconds.
_KEPT_FOR_CLOSING, _MOST_FOR_CLOSING = 0.2, 0.5


class Session:
    """One private filesystem on one event loop.

    Parameters
    ----------
    recipe : Recipe
        How to build the filesystem.
    loop : asyncio.AbstractEventLoop
        The loop that owns it: the running one.
    close_timeout : float
        Seconds that closing may take in all when the loop itself ends it.
    on_end : callable
        Called with this session once, on whatever thread it ends, gracefully or by force.

    Raises
    ------
    StoreClosedError
        The loop is ending, and has closed its session already.
    """

    def __init__(
        self,
        recipe: Recipe,
        loop: asyncio.AbstractEventLoop,
        *,
        close_timeout: float,
        on_end: Callable[[Session], None],
    ) -> None:
        if is_ending(loop):
            raise recipe.closed_error(" with this event loop, which is ending")
        self.loop = loop
        self.number = next(_numbers)
        self.state = State.NEW
        self.forced = False
        self.left_to_its_loop = False  # its loop is blocked by a `close` that cannot wait for it: nobody else should
        self.asked_to_close = False  # by a pool, which need not ask again while the loop is paused
        self.requests = RequestsInFlight(before_cut_off=self._notice)
        self.built: Built | None = None
        self._recipe = recipe
        self._close_timeout = close_timeout
        self._on_end = on_end
        self.wrapped: dict[tuple[str | None, tuple[type[Exception], ...]], WrappedFsspecStore] = {}
        self._opening: asyncio.Task[None] | None = None
        self._awaited = 0  # how many wait for it to be open, to begin a request at once
        self._closing: asyncio.Task[None] | None = None
        self._holding: Holding | None = None
        self._end_of_loop = EndOfLoop(loop, lambda: self.close(Drain.ALL, close_timeout))

    # Opening

    async def opened(self) -> Session:
        """Wait until the session is open. Whoever comes first opens it; if they are cancelled the others still open.

        Raises
        ------
        StoreClosedError
            The session was closed before it was open.
        StoreOpenError
            The filesystem could not be built.
        """
        while self.state < State.OPEN:
            if self._opening is None:
                self._opening = self.loop.create_task(self._open(), name="managed_store open")
                self._opening.add_done_callback(self._opening_ended)
            opening = self._opening
            self._awaited += 1
            try:
                await asyncio.wait([opening])
            finally:
                self._awaited -= 1
            if not opening.cancelled() and (error := opening.exception()) is not None:
                # An error of its own for each who waits: one that is raised many times would collect tracebacks.
                raise self._recipe.open_error(error) from error
        if self.state is not State.OPEN:
            self._refuse()
        return self

    def built_at_once(self) -> Built:
        """Build from synchronous code on the loop's own thread, and block the loop for as long as that takes.

        What the first request needs is opened when it comes.
        """
        if self.state is State.NEW:
            if self._opening is not None:
                self._opening.cancel()  # those who wait for it open what is built now
            try:
                built = build(self._recipe, self.loop)
            except Exception as error:
                self._end()
                raise self._recipe.open_error(error) from error
            self._take(built)
        if self.built is None or self.state > State.OPEN:
            self._refuse()
        return self.built

    async def _open(self) -> None:
        holding = self._holding
        try:
            if holding is None:
                built = await in_helper_thread(
                    lambda: build(self._recipe, self.loop), discard=lambda built: closer_of(built.layer).force()
                )
                holding = self._take(built)
            await holding.open()
        except BaseException:
            # Unless it is being closed, or has been built at once meanwhile. The next use tries with another session.
            if self.state < State.OPEN and self._holding is holding:
                self._force()
                self._end()
            raise
        if self.state < State.OPEN:
            self.state = State.OPEN
            self.requests.idle_since = time.monotonic()

    def _opening_ended(self, opening: asyncio.Task[None]) -> None:
        retrieve(opening)  # those who wait may all have been cancelled
        self._opening = None  # the task keeps the context variables of whoever came first

    def _take(self, built: Built) -> Holding:
        self.built = built
        self.state = max(self.state, State.BUILT)
        self.requests.idle_since = time.monotonic()
        self._holding = Holding(built, self._refuse)
        self._end_of_loop.watch()
        return self._holding

    # Use

    def wrapped_at(self, path: str | None, allowed_exceptions: tuple[type[Exception], ...]) -> WrappedFsspecStore:
        """The store at `path` of this session's filesystem that reads these exceptions as "no such key".

        None stands for the path that the recipe names. It is kept in `wrapped`.
        """
        if self.built is None:
            self._refuse()
        store = self.wrapped.get((path, allowed_exceptions))
        if store is None:
            if len(self.wrapped) >= _MOST_WRAPPED:
                self.wrapped.clear()
            store = wrap(self.built.filesystem, self.built.path if path is None else path, allowed_exceptions)
            self.wrapped[path, allowed_exceptions] = store
        return store

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise self._recipe.closed_error()

    # Closing

    async def close(self, drain: Drain, timeout: float) -> None:
        """Close on the owning loop, within `timeout` seconds; whoever comes later waits for the same closing.

        Raises
        ------
        StoreCloseError
            Something is still open, and could not be cut off.
        """
        if self.state is not State.CLOSED:
            closing = self.close_soon(drain, timeout)
            await finished(closing)
            if not closing.cancelled():
                closing.result()

    def close_soon(self, drain: Drain, timeout: float) -> asyncio.Task[None]:
        """Begin to close, on the loop's own thread, and return the task that does it: the same one for everybody.

        Whoever comes later may be in more of a hurry, and lets fewer requests finish.
        """
        if self.state is State.CLOSING:
            self.requests.cut_off(drain)
        # A task that was cancelled before it began, by a loop that ends, has closed nothing.
        if self._closing is None or (self._closing.done() and self.state is not State.CLOSED):
            self._closing = self.loop.create_task(self._close(drain, timeout), name="managed_store close")
            self._closing.add_done_callback(_log_failure)
        return self._closing

    def close_at_once(self) -> None:
        """Close from synchronous code on the loop's own thread, which cannot wait for itself.

        The sockets are cut off now; what must still be awaited is left to a task of the loop.
        """
        if self.state is not State.CLOSED:
            self.left_to_its_loop = True
            self.close_by_force()
            self.loop.call_soon_threadsafe(lambda: None)  # for a signal handler: the loop may be asleep

    def close_by_force(self) -> None:
        """Cut off, on the loop's own thread, and leave what must still be awaited to a task of the loop."""
        if self.state is not State.CLOSED:
            self.cut_off_at_once()
            self.close_soon(Drain.NOTHING, self._close_timeout)

    def cut_off_at_once(self) -> None:
        """Cut off requests and connections, on the loop's own thread; the closing that is under way ends soon after."""
        self._begin_closing()
        if not self.loop.is_closed():
            self.requests.cut_off(Drain.NOTHING)
        self._force()

    def cut_off(self) -> Exception | None:
        """End the session without its loop, which is closed or paused. From any thread; never on a running loop.

        What goes wrong is returned, and logged.
        """
        error: Exception | None = None
        if self.state is not State.CLOSED:
            try:
                self.cut_off_at_once()
                if self._holding is not None and (left_open := self._holding.left_open_at_once()):
                    error = self._recipe.close_error(left_open)
            except Exception as failure:  # of a closer that breaks its contract
                error = failure
            finally:
                self._end()
            if error is not None:
                _log(error)
        return error

    def close_if_idle(self, idle_for: float = 0.0) -> bool:
        """Begin to close, on the loop's own thread, if no request has been in flight for `idle_for` seconds."""
        self.asked_to_close = False
        idle = self.state < State.CLOSING and self.idle_for >= idle_for
        if idle:
            self.state = State.CLOSING  # now: a request that came before the closing begins would have to end in time
            self.close_soon(Drain.ALL, self._close_timeout)
        return idle

    @property
    def idle_for(self) -> float:
        """Seconds for which no request has been in flight; below 0 if one is, or waits for the session to be open."""
        in_use = self.requests or self._awaited or self.state is State.NEW
        return -1.0 if in_use else time.monotonic() - self.requests.idle_since

    async def _close(self, drain: Drain, timeout: float) -> None:
        deadline = self.loop.time() + timeout
        try:
            self._begin_closing()
            await self._drain(drain, deadline)
            if self._holding is not None:
                async with asyncio.timeout_at(deadline):
                    await self._holding.close()
        except Exception as error:  # whatever a backend raises while it closes, or time is up: its sockets must go
            _logger.debug("%r did not close gracefully: %s", self._recipe.redacted_url, type(error).__name__)
            self._force()
        except BaseException:  # the loop ends its tasks: nothing can be awaited any more
            self._force()
            raise
        finally:
            self._end()
        if self._holding is not None and (left_open := await self._holding.left_open()):
            raise self._recipe.close_error(left_open)

    def _begin_closing(self) -> None:
        """Refuse new requests, and give up opening."""
        self.state = max(self.state, State.CLOSING)
        if self._opening is not None and not self._opening.done() and not self.loop.is_closed():
            self._opening.cancel()

    async def _drain(self, drain: Drain, deadline: float) -> None:
        """Let the requests finish that may, and cut off the rest."""
        if self._opening is not None:
            await asyncio.wait([self._opening], timeout=max(0.0, deadline - self.loop.time()))
        if self.requests:
            kept = min((deadline - self.loop.time()) * _KEPT_FOR_CLOSING, _MOST_FOR_CLOSING)
            await self.requests.drained(drain, until=deadline - kept, by_force_until=deadline - kept / 2)

    def _notice(self) -> None:
        if self._holding is not None:
            self._holding.notice()

    def _force(self) -> None:
        if self._holding is not None:
            self.forced = True
            self._holding.force()

    def close_copies(self) -> None:
        """In a forked child: close its copies of the parent's sockets."""
        if self._holding is not None:
            self._holding.close_copies()

    def _end(self) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.wrapped.clear()
        self._end_of_loop.forget()
        self._on_end(self)


def _log_failure(closing: asyncio.Task[None]) -> None:
    """Nobody may be waiting for a closing to fail: the log knows of it in any case."""
    if not closing.cancelled() and (error := closing.exception()) is not None:
        _log(error)


def _log(error: BaseException) -> None:
    """Log an error; of somebody else's, whose text may hold secrets, only the kind."""
    _logger.warning("%s", error if isinstance(error, ManagedStoreError) else f"Closing failed: {type(error).__name__}")
