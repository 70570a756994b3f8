"""Checks of arguments, but for those that make a recipe, and where the user called."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from managed_store.errors import ArgumentError, ArgumentTypeError

__all__ = ["caller", "checked_count", "checked_exceptions", "checked_flag", "checked_seconds"]


def checked_exceptions(allowed_exceptions: object) -> tuple[type[Exception], ...]:
    """The exception types as a tuple, or ArgumentTypeError."""
    # A tuple is told at once, an abstract class is asked.
    if isinstance(allowed_exceptions, tuple | Sequence) and not isinstance(allowed_exceptions, str | bytes):
        types = tuple(allowed_exceptions)
        if all(isinstance(each, type) and issubclass(each, Exception) for each in types):
            return types
    raise ArgumentTypeError(
        f"allowed_exceptions must be a tuple of exception types, such as (FileNotFoundError,); "
        f"got {type(allowed_exceptions).__name__}."
    )


def checked_flag(name: str, value: object) -> bool:
    """The flag, or ArgumentTypeError."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{name} must be True or False; got {type(value).__name__}.")
    return value


def checked_seconds(name: str, value: object, *, infinite: bool = False, zero: bool = True) -> float:
    """The seconds as a float, or ArgumentTypeError or ArgumentError.

    Parameters
    ----------
    name : str
        The argument, for the message.
    value : object
        What it was given.
    infinite, zero : bool
        Whether ``math.inf`` and 0 will do.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentTypeError(f"{name} must be a number of seconds; got {type(value).__name__}.")
    if not 0 <= value <= math.inf or (value == math.inf and not infinite) or (value == 0 and not zero):
        kind = "a number of seconds, or math.inf" if infinite else "a finite number of seconds"
        raise ArgumentError(f"{name} must be {kind}, {'0 or more' if zero else 'more than 0'}; got {value!r}.")
    return float(value)


def checked_count(name: str, value: object) -> int:
    """The count, at least 1, or ArgumentTypeError or ArgumentError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} must be a whole number; got {type(value).__name__}.")
    if value < 1:
        raise ArgumentError(f"{name} must be 1 or more; got {value}.")
    return value


def caller() -> str:
    """File and line of the nearest frame outside this package, zarr and xarray: where the user made the store."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in (
        "managed_store",
        "zarr",
        "xarray",
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
