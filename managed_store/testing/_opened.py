"""What has been opened since a check began, in the order in which it was; nothing is kept alive by being known here."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from managed_store._redaction import redacted
from managed_store.testing._origins import Origin, frames_of, loop_state, origin_here
from managed_store.testing._report import Kind, Leak

__all__ = ["Opened", "Record", "nothing_since", "number"]

# How many of those that died last are remembered, until their finalizers have been called.
_DYING = 200

# Counts all that is opened, whatever its kind: a check asks for what came after its own number.
_numbers = itertools.count(1)


def number() -> int:
    """Return a number that is higher than those of all that was opened before, and lower than the later ones."""
    return next(_numbers)


def nothing_since(mark: int) -> bool:
    """Whether nothing at all was noticed since then: all that a test costs that opens nothing. False can be wrong."""
    return number() == mark + 1


@dataclass(slots=True)
class Record:
    """A thing that was opened: when and where, and what it is called should it be gone."""

    number: int
    reference: weakref.ref[Any]
    origin: Origin
    what: str
    closed: bool = False

    def leak(self, kind: Kind, what: str | None = None, *, collected: bool = False) -> Leak:
        """Describe it."""
        loop = None if self.origin.loop is None else self.origin.loop()
        on_a_loop = self.origin.loop is not None
        thread = redacted(self.origin.thread)
        return Leak(
            kind=kind,
            what=what or self.what,
            stack=frames_of(self.origin.frames),
            thread=thread,
            loop=f"the event loop of thread {thread}" if on_a_loop else None,
            loop_state=loop_state(loop) if on_a_loop else None,
            collected=collected,
        )


class _Reference(weakref.ref[Any]):
    """A weak reference that knows the id of what it referred to."""

    __slots__ = ("key",)
    key: int


class Opened:
    """All things of one kind that have been opened while any check was on.

    Objects are noted on any thread, and die on any, also in the middle of a garbage collection: there is no lock, and
    each step is a single operation on a dictionary or list.
    """

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._lost: list[Record] = []
        self._dying: dict[int, Record] = {}

    def note(self, thing: Any, origin: Origin | None = None) -> Record:
        """Remember that `thing` is being opened, here and now. A second time it is known already."""
        known = self._records.get(id(thing))
        if known is not None and known.reference() is thing:
            return known
        reference = _Reference(thing, self._forget)
        reference.key = id(thing)
        what = f"{type(thing).__module__}.{type(thing).__qualname__}"
        record = Record(number(), reference, origin or origin_here(), what)
        self._dying.pop(reference.key, None)  # of another, which had the same id
        self._records[reference.key] = record
        return record

    def get(self, thing: Any) -> Record | None:
        """What is known of `thing`."""
        record = self._records.get(id(thing))
        return record if record is not None and record.reference() is thing else None

    def lose(self, thing: Any) -> None:
        """Remember that `thing` is being collected, unclosed."""
        # The collector of cycles clears weak references before it calls finalizers, and so has called `_forget`.
        record = self._records.get(id(thing)) or self._dying.pop(id(thing), None)
        if record is not None:
            self._lost.append(record)

    def since(self, mark: int) -> Iterator[tuple[Record, Any]]:
        """What has been opened after `mark` and is still there."""
        for record in list(self._records.values()):
            thing = record.reference()
            if record.number > mark and thing is not None:
                yield record, thing

    def lost_since(self, mark: int) -> Iterator[Record]:
        """What has been opened after `mark` and collected unclosed; what its finalizer has revived is still there."""
        return (record for record in list(self._lost) if record.number > mark and record.reference() is None)

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()
        self._lost.clear()
        self._dying.clear()

    def _forget(self, reference: weakref.ref[Any]) -> None:
        assert isinstance(reference, _Reference)
        record = self._records.get(reference.key)
        if record is not None and record.reference is reference:
            self._records.pop(reference.key, None)
            self._dying[reference.key] = record
            if len(self._dying) > _DYING:
                self._dying.pop(next(iter(self._dying.copy()), 0), None)
