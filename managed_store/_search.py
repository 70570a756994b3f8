"""Finding what an object holds, by walking through its attributes: for objects whose insides nobody here knows."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

__all__ = ["held_by"]

# How many objects are looked at: what holds a connection lies near, and a big table of references is no place for one.
_LIMIT = 5000

_NOT_ENTERED = (
    type, str, bytes, bytearray, int, float, complex, types.ModuleType, types.FunctionType, types.BuiltinFunctionType,
    types.CodeType, asyncio.AbstractEventLoop, asyncio.Future, threading.Thread,
)  # fmt: skip
# Nearly all attributes are of exactly these: told by the type alone, faster than by all that it derives from.
_LEAVES = frozenset({type(None), bool, *_NOT_ENTERED})


def held_by(root: Any, wanted: Callable[[Any], bool], *, borrowed: Collection[Any] = ()) -> Iterator[Any]:
    """Yield each object that `wanted` accepts and that is reached from the attributes of `root`, the nearest first.

    Parameters
    ----------
    root : object
        Where to begin.
    wanted : callable
        Whether an object is one of those that are looked for. What is found is not entered.
    borrowed : collection, optional
        Objects that belong to somebody else: neither yielded nor entered.
    """
    kept = list(borrowed)  # while their ids are compared
    seen = {id(root), *map(id, kept)}
    queue = [root]
    for looked_at, current in enumerate(queue):  # grows while it is walked through
        if looked_at >= _LIMIT:
            return
        for child in _children(current):
            if type(child) in _LEAVES or id(child) in seen or isinstance(child, _NOT_ENTERED):
                continue
            seen.add(id(child))
            if wanted(child):
                yield child
            else:
                queue.append(child)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, types.MethodType):
        return [value.__self__]
    attributes = getattr(value, "__dict__", None)
    return list(attributes.values()) if isinstance(attributes, dict) else []
