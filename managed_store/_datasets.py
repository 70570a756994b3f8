"""What a dataset of xarray calls to be closed. Imports no xarray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from managed_store._leaving import Closable

__all__ = ["ClosingOfDataset"]


class ClosingOfDataset:
    """Closes a dataset: does what xarray does for that, and then ends its sessions.

    Parameters
    ----------
    inner : callable or None
        What xarray does.
    owners : sequence of Closable
        Whose sessions they are.
    pickled : sequence of Closable, optional
        What a pickle takes along as owners, if not these.
    together : set, optional
        The closings of datasets with the same owners, which this one joins; the last of them to be called ends the
        sessions.
    """

    def __init__(
        self,
        inner: Callable[[], None] | None,
        owners: Sequence[Closable],
        *,
        pickled: Sequence[Closable] | None = None,
        together: set[ClosingOfDataset] | None = None,
    ) -> None:
        self._inner = inner
        self._owners = owners
        self._pickled = owners if pickled is None else pickled
        self._together = set() if together is None else together
        self._together.add(self)

    def __call__(self) -> None:
        """Close. As often as one likes."""
        error = _exception_of_the_block()
        self._together.discard(self)
        with ExitStack() as after:
            after.callback(self._end, error)
            if self._inner is not None:
                self._inner()

    def _end(self, error: BaseException | None) -> None:
        if not self._together:
            stack = ExitStack()
            for owner in self._owners:
                stack.push(owner.__exit__)
            stack.__exit__(None if error is None else type(error), error, None)

    def __reduce__(self) -> tuple[type[ClosingOfDataset], tuple[object, ...]]:
        return type(self), (self._inner, self._pickled)


def _exception_of_the_block() -> BaseException | None:
    """The exception with which a ``with`` block of a dataset is being left.

    xarray's ``__exit__`` drops it and calls ``close()``; but a failure to close must not take its place.
    """
    frame = sys._getframe(2)
    while str(frame.f_globals.get("__name__")).partition(".")[0] == "xarray" and frame.f_back is not None:
        if frame.f_code.co_name == "__exit__":
            error = frame.f_locals.get("exc_value")
            return error if isinstance(error, BaseException) else None
        frame = frame.f_back
    return None
