"""An attribute that is worked out when it is first asked for, and kept.

`functools.cached_property` has a lock until Python 3.12: in a child that is forked while another thread holds it,
whoever asks next waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["once"]

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801  # it is used as `property` is
    """Decorates the method that works it out. Two threads may both do so: what they get must be equal.

    Parameters
    ----------
    work : callable
        The method.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        value = vars(instance)[self._work.__name__] = self._work(instance)
        return value
