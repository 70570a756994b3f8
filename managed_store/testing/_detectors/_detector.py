"""What a detector is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, TypeAlias

from managed_store.testing._opened import Opened
from managed_store.testing._patches import Patches
from managed_store.testing._report import Leak

__all__ = ["Detector", "Found", "Mark", "Seen"]

# A leak, and the thing itself while it is there: for a moment, and never kept.
Found: TypeAlias = "tuple[Leak, Any]"


class Seen(NamedTuple):
    """What was seen at a look at the descriptors of this process."""

    number: int
    """That of `Opened` by then."""
    descriptors: int
    sockets: frozenset[int]
    """Their inodes."""


class Mark(NamedTuple):
    """The moment that a check began."""

    process: object
    number: int
    """That of `Opened`."""
    seen: Seen
    """At the last look before it."""


class Detector:
    """Finds one kind of thing that was opened and is open. One serves all checks of the process at a time."""

    # Whether the things have finalizers, in which it looks whether they were closed.
    with_finalizers: ClassVar[bool] = False

    def __init__(self) -> None:
        self.opened = Opened(with_finalizers=self.with_finalizers)

    def install(self, patches: Patches) -> None:
        """Have it noticed from now on when such a thing is opened."""
        raise NotImplementedError

    def leaks(self, mark: Mark) -> Iterator[Found]:
        """What was opened since then and is open."""
        raise NotImplementedError
