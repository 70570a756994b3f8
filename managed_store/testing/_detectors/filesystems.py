"""fsspec's filesystems that hold something open, whatever they call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from managed_store._search import held_by
from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._patches import Patches

__all__ = ["FilesystemDetector"]

# The qualified names of what has an attribute `closed`.
_SESSIONS = {"aiohttp.client.ClientSession"}

# How things of a type are asked; most are none of those that can be open.
_is_open_of: WeakKeyDictionary[type, Callable[[Any], bool] | None] = WeakKeyDictionary()


class FilesystemDetector(Detector):
    """Every filesystem that has a live session, connection, client or executor among its attributes."""

    def install(self, patches: Patches) -> None:
        def patch(module: ModuleType) -> None:
            patches.notice(module.AbstractFileSystem, "__init__", self.opened.note)

        patches.when_imported("fsspec.spec", patch)

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, filesystem in self.opened.since(mark.number):
            if not any(map(_is_live, held_by(filesystem, _can_be_open))):  # nearly always
                continue
            options = vars(filesystem).get("storage_options")
            # What the user gave is the user's; also where it was given in a dictionary, as client_kwargs.
            borrowed = list(held_by(options, lambda value: not isinstance(value, dict | list | tuple)))
            held = next(filter(_is_live, held_by(filesystem, _can_be_open, borrowed=borrowed)), None)
            if held is not None:
                yield record.leak("filesystem", f"{record.what}, which holds a live {type(held).__name__}"), filesystem


def _can_be_open(value: Any) -> bool:
    """Whether it is one of those that are open or closed. What is in one that is closed is closed with it."""
    try:
        return _is_open_of[type(value)] is not None
    except KeyError:
        is_open = _is_open_of[type(value)] = _how_to_ask(value)
        return is_open is not None


def _is_live(value: Any) -> bool:
    is_open = _is_open_of[type(value)]
    try:
        return is_open is not None and is_open(value)
    except AttributeError:  # its constructor has failed, or has not come so far
        return False


def _how_to_ask(value: Any) -> Callable[[Any], bool] | None:
    """How to ask such a thing whether it is open, or None if it is none that can be."""
    from managed_store._closers._clients import known_client

    if any(f"{cls.__module__}.{cls.__qualname__}" in _SESSIONS for cls in type(value).__mro__):
        return lambda session: not session.closed
    client = known_client(value)
    return None if client is None else client.is_open
