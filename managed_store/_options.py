"""Storage options as values: checked, copied, compared, hashed and pickled, whatever they hold."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Mapping, MutableMapping, MutableSequence, MutableSet
from types import MappingProxyType
from typing import Any

from fsspec.spec import AbstractFileSystem

from managed_store.errors import ArgumentError, ArgumentTypeError

__all__ = ["DECIDED_HERE", "checked_options", "copied", "in_order", "key_of"]

# What a managed store decides itself, for every filesystem of a chain.
DECIDED_HERE = ("asynchronous", "skip_instance_cache", "loop")

# What a filesystem of a managed store is always built with. A user may say the same, not the opposite.
_ALWAYS = {"asynchronous": True, "skip_instance_cache": True}

# The table of references: the protocol of the first one is that of `remote_options`.
_IN_ITS_OWN_ORDER = "fo"

# Types whose values say all.
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})

# Plain mappings by other names: kept as they are, they could change after a session was opened with what they said.
_DICTS = frozenset({dict, OrderedDict, defaultdict, MappingProxyType})


def checked_options(storage_options: object) -> dict[str, Any]:
    """Check the options that every filesystem has, and leave out those that say what is so in any case."""
    if storage_options is None:
        return {}
    if not isinstance(storage_options, dict | Mapping):  # a dict is told at once, an abstract class is asked
        raise ArgumentTypeError(
            f"storage_options must be a mapping of option names to values, such as {{'anon': True}}; "
            f"got {type(storage_options).__name__}."
        )
    for name in storage_options:
        if not isinstance(name, str):
            raise ArgumentTypeError(
                f"storage_options must have strings as keys, such as 'anon'; got a key of type {type(name).__name__}."
            )
    for name, always in _ALWAYS.items():
        if name in storage_options and storage_options[name] is not always:
            raise ArgumentError(
                f"storage_options[{name!r}] must be {always} or absent: a managed store builds private, asynchronous "
                f"filesystems. Leave it out."
            )
    if storage_options.get("loop") is not None:
        raise ArgumentError(
            "storage_options['loop'] must be absent: a managed store opens one filesystem per event loop, on that "
            "loop. Leave it out, and use the store on the loop you mean."
        )
    return {name: value for name, value in storage_options.items() if name not in DECIDED_HERE}


def copied(value: Any) -> Any:
    """Copy the plain containers, so that later changes by the caller do not reach us; borrow all else as it is.

    What is equal comes out alike, and is pickled alike: names in order, and one object for each of the strings. These
    are not interned: Python 3.12 keeps what is for ever, and they may be secrets that are rotated.
    """
    return _copied(value, {})


def _copied(value: Any, strings: dict[str, str], *, is_sorted: bool = True) -> Any:
    if type(value) is str:
        return strings.setdefault(value, value)
    if type(value) in _PLAIN:
        return value
    if type(value) in _DICTS:
        if {str}.issuperset(map(type, value)):
            return {
                strings.setdefault(name, name): _copied(
                    value[name], strings, is_sorted=is_sorted and name != _IN_ITS_OWN_ORDER
                )
                for name in (sorted(value) if is_sorted else value)
            }
        return {_copied(name, strings): _copied(each, strings) for name, each in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)([_copied(each, strings, is_sorted=is_sorted) for each in value])
    if isinstance(value, MutableMapping | MutableSequence | MutableSet):
        return copy.copy(value)  # equal to itself alone: whether it says the same is not known here
    return value


def in_order(value: Any) -> Any:
    """The same, but that each set is pickled in an order that does not depend on the seed of hashes."""
    if type(value) is dict:
        return {name: in_order(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(in_order, value))
    return _SetInOrder(value) if type(value) in (set, frozenset) else value


class _SetInOrder:
    """What a set is pickled as; it comes back as a set."""

    def __init__(self, members: set[Any] | frozenset[Any]) -> None:
        self._members = members

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return type(self._members), (sorted(self._members, key=pickle.dumps),)


def key_of(value: Any) -> Hashable:
    """What is equal for options that say the same, by value and type: 1 is not True."""
    kind = type(value)
    if kind is dict:
        return kind, frozenset([(key_of(name), key_of(each)) for name, each in value.items()])
    if kind in (list, tuple):
        return kind, tuple(map(key_of, value))
    if kind in (set, frozenset):
        return kind, frozenset(map(key_of, value))
    return (kind, value) if kind in _PLAIN else _Borrowed(value)


class _Borrowed:
    """An object as part of a key: a live one is equal to itself alone, or to what it says that it equals.

    What cannot be hashed may change, so that its value of now says nothing; and filesystems compare by fsspec's token.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Borrowed):
            return False
        mine, its = self._value, other._value
        if mine is its:
            return True
        if type(mine) is not type(its) or type(mine).__hash__ is None or isinstance(mine, AbstractFileSystem):
            return False
        try:
            return bool(mine == its)
        except Exception:  # whatever the comparison of an unknown object raises
            return False

    def __hash__(self) -> int:
        return hash(type(self._value))
