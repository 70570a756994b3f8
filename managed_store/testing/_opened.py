"""What has been opened since a check began, in the order in which it was; nothing is kept alive by being known here."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from managed_store._redaction import redacted
from managed_store.testing._origins import RawStack, frames_of, loop_state, stack_here
from managed_store.testing._report import Kind, Leak, LoopState

__all__ = ["Opened", "Record", "number"]

# How many of those that died last are remembered, until their finalizers have been called.
_DYING = 200

# From how many records on it is worth looking which of them are of what is gone.
_MANY = 1000

# Counts all that is opened, whatever its kind: a check asks for what came after its own number. Each is higher than
# those of all that was opened before, and lower than the later ones.
number = itertools.count(1).__next__

_main_thread = threading.main_thread().ident


class Record(weakref.ref[Any]):
    """A thing that was opened, as a weak reference that remembers when, where and on which loop.

    One is made for every task and socket of a program that is watched: it is a single object for that reason.
    """

    __slots__ = ("_loop", "_thread", "_type", "closed", "key", "number", "stack")

    key: int
    number: int
    stack: RawStack
    closed: bool
    _loop: weakref.ref[asyncio.AbstractEventLoop] | None
    _thread: str | None
    _type: type

    @property
    def what(self) -> str:
        """What it is called, should it be gone."""
        return f"{self._type.__module__}.{self._type.__qualname__}"

    @property
    def loop_state(self) -> LoopState | None:
        """What the event loop that it was opened on is doing, if there was one."""
        return None if self._loop is None else loop_state(self._loop())

    def leak(self, kind: Kind, what: str | None = None, *, collected: bool = False) -> Leak:
        """Describe it."""
        thread = redacted(threading.main_thread().name if self._thread is None else self._thread)
        return Leak(
            kind=kind,
            what=what or self.what,
            stack=frames_of(self.stack),
            thread=thread,
            loop=None if self._loop is None else f"the event loop of thread {thread}",
            loop_state=self.loop_state,
            collected=collected,
        )


class Opened:
    """All things of one kind that have been opened while any check was on.

    Objects are noted on any thread, and die on any, also in the middle of a garbage collection: there is no lock, and
    each step is a single operation on a dictionary or list.

    Parameters
    ----------
    with_finalizers : bool
        Whether the things have finalizers that `lose` them.
    """

    def __init__(self, *, with_finalizers: bool = False) -> None:
        self.last = 0
        """The number of what was opened last."""
        self._records: dict[int, Record] = {}
        self._lost: list[Record] = []
        self._dying: OrderedDict[int, Record] = OrderedDict()
        self._most = _MANY
        # Of all else, records stay behind until the next look: a call for each that dies would be much of the cost.
        self._on_death = self._remember_for_its_finalizer if with_finalizers else None

    def note(self, thing: Any) -> Record:
        """Remember that `thing` is being opened, here and now. A second time it is known already."""
        known = self._records.get(id(thing))
        if known is not None and known() is thing:
            return known
        loop = asyncio._get_running_loop()
        return self.note_at(thing, stack_here(loop), loop)

    def note_at(self, thing: Any, stack: RawStack, loop: asyncio.AbstractEventLoop | None) -> Record:
        """Remember that `thing` has been opened just now, by that stack."""
        record = Record(thing, self._on_death)
        record.key = key = id(thing)
        record.number = self.last = number()
        record.stack = stack
        record.closed = False
        record._loop = None if loop is None else weakref.ref(loop)
        # Of the main thread, nearly always: asking for its name takes as long as all the rest.
        record._thread = None if threading.get_ident() == _main_thread else threading.current_thread().name
        record._type = type(thing)
        if self._dying:
            self._dying.pop(key, None)  # of another, which had the same id
        self._records[key] = record
        if len(self._records) > self._most:
            self._forget_what_is_gone()
        return record

    def get(self, thing: Any) -> Record | None:
        """What is known of `thing`."""
        record = self._records.get(id(thing))
        return record if record is not None and record() is thing else None

    def stack_of(self, thing: Any) -> RawStack | None:
        """Who has opened `thing`, if that is known."""
        record = self.get(thing)
        return None if record is None else record.stack

    def lose(self, thing: Any) -> None:
        """Remember that `thing` is being collected, unclosed."""
        # The collector of cycles clears weak references before it calls finalizers, and so has forgotten it.
        record = self._records.get(id(thing)) or self._dying.pop(id(thing), None)
        if record is not None:
            self._lost.append(record)

    def since(self, mark: int) -> Iterator[tuple[Record, Any]]:
        """What has been opened after `mark` and is still there."""
        for record in list(self._records.values()):
            thing = record()
            if thing is not None:
                if record.number > mark:
                    yield record, thing
            # Of what came before the last look, nothing that is gone is gone through again.
            elif self._on_death is None:
                self._forget(record)

    def lost_since(self, mark: int) -> Iterator[Record]:
        """What has been opened after `mark` and collected unclosed; what its finalizer has revived is still there."""
        return (record for record in list(self._lost) if record.number > mark and record() is None)

    def _forget_what_is_gone(self) -> None:
        for record in list(self._records.values()):
            if record() is None:
                self._forget(record)
        self._most = max(_MANY, 2 * len(self._records))

    def _forget(self, record: Record) -> bool:
        ours = self._records.get(record.key) is record
        if ours:
            self._records.pop(record.key, None)
        return ours

    def _remember_for_its_finalizer(self, record: weakref.ref[Any]) -> None:
        assert isinstance(record, Record)
        if self._forget(record):
            self._dying[record.key] = record
            if len(self._dying) > _DYING:
                self._dying.popitem(last=False)
