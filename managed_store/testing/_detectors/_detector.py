"""What a detector is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from managed_store.testing._opened import Opened
from managed_store.testing._patches import Patches
from managed_store.testing._report import Leak

__all__ = ["Detector", "Found"]

# A leak, and the thing itself while it is there: for a moment, and never kept.
Found: TypeAlias = "tuple[Leak, Any]"


class Detector:
    """Finds one kind of thing that was opened and is open. One serves all checks of the process at a time."""

    # Whether it finds what was never noticed to be opened.
    below_python: ClassVar[bool] = False

    # Whether the things have finalizers, in which it looks whether they were closed.
    with_finalizers: ClassVar[bool] = False

    def __init__(self) -> None:
        self.opened = Opened(with_finalizers=self.with_finalizers)

    def install(self, patches: Patches) -> None:
        """Have it noticed from now on when such a thing is opened."""
        raise NotImplementedError

    def mark(self, now: int, *, quickly: bool = False) -> Any:
        """Return what `leaks` must be given to tell what was opened from now on, which is a number of `Opened`.

        Only those that look below Python are asked. Where it is to be done `quickly`, the last look will do.
        """
        return now

    def leaks(self, mark: Any) -> Iterator[Found]:
        """What was opened since then and is open."""
        raise NotImplementedError
