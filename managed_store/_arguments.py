"""Checks of the constructor's arguments, but for those that make the recipe, and where the constructor was called."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from managed_store.errors import ArgumentError, ArgumentTypeError

__all__ = ["caller", "checked_exceptions", "checked_timeout"]


def checked_exceptions(allowed_exceptions: object) -> tuple[type[Exception], ...]:
    """The exception types as a tuple, or ArgumentTypeError."""
    if isinstance(allowed_exceptions, Sequence):
        types = tuple(allowed_exceptions)
        if all(isinstance(each, type) and issubclass(each, Exception) for each in types):
            return types
    raise ArgumentTypeError(
        f"allowed_exceptions must be a tuple of exception types, such as (FileNotFoundError,); "
        f"got {type(allowed_exceptions).__name__}."
    )


def checked_timeout(close_timeout: object) -> float:
    """The seconds as a float, or ArgumentTypeError or ArgumentError."""
    if isinstance(close_timeout, bool) or not isinstance(close_timeout, int | float):
        raise ArgumentTypeError(f"close_timeout must be a number of seconds; got {type(close_timeout).__name__}.")
    if not (0 <= close_timeout < math.inf):
        raise ArgumentError(f"close_timeout must be a finite number of seconds, 0 or more; got {close_timeout!r}.")
    return float(close_timeout)


def caller() -> str:
    """File and line of the nearest frame outside this package and zarr: where the user made the store."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in (
        "managed_store",
        "zarr",
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
