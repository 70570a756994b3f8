"""How to build a private filesystem from a URL and options: checked, compared and pickled.

Nothing here imports a backend or opens a connection. A recipe is what a pickle carries, never a session: fsspec's own
pickle forgets ``skip_instance_cache``, and two unpickled copies would meet in fsspec's instance cache.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, MutableSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fsspec.registry import known_implementations
from fsspec.registry import registry as registered_implementations
from fsspec.spec import AbstractFileSystem

from managed_store._chain import protocols_of, wants_listings_cache
from managed_store._levels import check_levels, check_parts
from managed_store._redaction import redacted
from managed_store.errors import (
    ArgumentError,
    ArgumentTypeError,
    ManagedStoreError,
    MissingPackageError,
    StoreClosedError,
    StoreOpenError,
    UnknownProtocolError,
)

__all__ = ["Recipe", "checked_options"]

# The packages that an extra of this distribution installs.
_EXTRAS = {"s3fs": "s3", "adlfs": "azure"}

# What a filesystem of a managed store is always built with. A user may say the same, not the opposite.
_ALWAYS = {"asynchronous": True, "skip_instance_cache": True}

# Types of options whose values a hash may look at.
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})

# Plain mappings by other names: kept as they are, they could change after a session was opened with what they said.
_DICTS = frozenset({dict, OrderedDict, defaultdict, MappingProxyType})

_FILE_CACHES = frozenset({"blockcache", "cached", "filecache", "simplecache"})


@dataclass(frozen=True, eq=False, repr=False)
class Recipe:
    """A URL and the options of its filesystem.

    Two recipes are equal if they have the same URL and options of equal values. Never compared by repr or by fsspec's
    token: two different secrets can look alike there.

    Parameters
    ----------
    url : str
        What fsspec opens: a URL, a chain of URLs, or a plain path.
    options : dict
        The user's storage options, as given; live objects among them are borrowed.
    twin_of : type, optional
        The class of the filesystem, where the recipe was taken from one. The URL serves messages alone then.
    location : str, optional
        The root of the store in such a filesystem, as that spells it.
    """

    url: str
    options: dict[str, Any]
    twin_of: type | None = None
    location: str = ""

    @classmethod
    def checked(cls, url: object, storage_options: object) -> Recipe:
        """Check all that can be known without I/O and without importing a backend, and make the recipe.

        Raises
        ------
        ArgumentTypeError
            `url` is no string or path, or `storage_options` no mapping with string keys.
        ArgumentError
            `url` is empty, or an option contradicts what a managed store does.
        UnknownProtocolError
            fsspec knows no filesystem for the protocol.
        MissingPackageError
            The package behind the protocol is not installed.
        """
        text = _checked_url(url)
        options = checked_options(storage_options)
        check_parts(text)
        for protocol in protocols_of(text):
            _check_protocol(protocol, text)
        check_levels(text, options)
        return cls(text, options)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Recipe)
            and (self.url, self.twin_of, self.location) == (other.url, other.twin_of, other.location)
            and _equal_values(self.options, other.options)
        )

    def __hash__(self) -> int:
        return hash((self.url, self.twin_of, self.location, _hash_of(self.options)))

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        url, options = _in_order(_each_string_once((self.url, self.options), {}))
        return type(self), (url, options, self.twin_of, self.location)

    def closed_error(self, when: str = "") -> StoreClosedError:
        """The error for using a store that is closed: names it, and says what to do."""
        return StoreClosedError(
            f"The store {self.redacted_url!r} was closed{when}. Closing is final: make a new ManagedStore, or move "
            f"this use inside the `with` block that closed it."
        )

    def open_error(self, error: BaseException) -> StoreOpenError:
        """The error for a filesystem that cannot be built: not the backend's own, which zarr may take for no group."""
        if isinstance(error, ManagedStoreError):
            return StoreOpenError(str(error))
        return StoreOpenError(
            f"The filesystem of {self.redacted_url!r} could not be built: {type(error).__name__}, the cause of "
            f"this error. Check the URL and the storage_options."
        )

    def __repr__(self) -> str:
        return f"Recipe({self.redacted_url!r}, options={list(self.options)})"

    @property
    def redacted_url(self) -> str:
        """The URL without user info and query string, for messages."""
        return redacted(self.url)

    @property
    def protocols(self) -> list[str]:
        """The protocols of the chain, outermost first; ``"file"`` for a plain path."""
        protocols = protocols_of(self.url)
        last = self.options if len(protocols) == 1 else self.options.get(protocols[-1]) or {}
        inner, named = last.get("fs"), last.get("target_protocol")
        if isinstance(inner, Recipe):
            return protocols + inner.protocols
        if named is None and (named := getattr(inner, "protocol", None)) is None:
            return protocols
        return [*protocols, named if isinstance(named, str) else named[0]]

    @property
    def caches_files(self) -> bool:
        """Whether what is read is kept in a local cache, which a write must be told of."""
        return self.protocols[0] in _FILE_CACHES

    @property
    def wants_listings_cache(self) -> bool:
        """Whether the user's options, at any level, ask for a cache of listings.

        By default there is none: with a filesystem per event loop, a key written on one loop would stay invisible on
        another that has listed before, and gcsfs and adlfs lose keys even within one filesystem.
        """
        levels = [self.options, *(value for value in self.options.values() if isinstance(value, Mapping))]
        return any(map(wants_listings_cache, levels))


def _checked_url(url: object) -> str:
    if isinstance(url, os.PathLike) and not hasattr(url, "protocol"):  # a UPath has its own options: str() loses them
        url = os.fspath(url)
    if not isinstance(url, str):
        raise ArgumentTypeError(
            f"url must be a string such as 'https://host/data.zarr', 'gs://bucket/data.zarr' or a local path; "
            f"got {type(url).__name__}."
        )
    if not url.strip():
        raise ArgumentError("url must name a store, such as 'gs://bucket/data.zarr'; got an empty string.")
    return url


def checked_options(storage_options: object) -> dict[str, Any]:
    """Check the options that every filesystem has, and copy their containers."""
    if storage_options is None:
        return {}
    if not isinstance(storage_options, Mapping):
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
    kept = [name for name in storage_options if name not in _ALWAYS and name != "loop"]
    options: dict[str, Any] = _copied({name: storage_options[name] for name in kept})
    return options


def _check_protocol(protocol: str, url: str) -> None:
    if protocol in registered_implementations:
        return
    if protocol not in known_implementations:
        raise UnknownProtocolError(
            f"url has the unknown protocol {protocol!r} in {redacted(url)!r}. fsspec knows, among others, file, gs, "
            f"http, https, memory and s3; fsspec.register_implementation adds your own."
        )
    package = known_implementations[protocol]["class"].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        extra = _EXTRAS.get(package)
        remedy = f"pip install 'managed-store[{extra}]'" if extra else f"pip install {package}"
        raise MissingPackageError(
            f"url {redacted(url)!r} needs the package {package!r} for its protocol {protocol!r}: {remedy}.",
            name=package,
        )


def _copied(value: Any) -> Any:
    """Copy the plain containers, so that later changes by the caller do not reach us; borrow all else as it is."""
    return _each_string_once(value, {})


def _each_string_once(value: Any, strings: dict[str, str]) -> Any:
    """Copy the plain containers, sorted by name, with one object for each of the `strings`.

    So equal recipes have equal pickles and dask tokens. The strings are not interned: Python 3.12 keeps those for
    ever, and these may be secrets that are rotated.
    """
    if type(value) in _DICTS:
        names = sorted(value) if all(type(name) is str for name in value) else value
        return {_each_string_once(name, strings): _each_string_once(value[name], strings) for name in names}
    if type(value) in (list, tuple, set):
        return type(value)(_each_string_once(each, strings) for each in value)
    if isinstance(value, MutableMapping | MutableSequence | MutableSet):
        return copy.copy(value)  # equal to itself alone: whether it says the same is not known here
    return strings.setdefault(value, value) if type(value) is str else value


def _in_order(value: Any) -> Any:
    """The same, but that each set is pickled in an order that does not depend on the seed of hashes."""
    if type(value) is dict:
        return {name: _in_order(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_in_order, value))
    return _SetInOrder(value) if type(value) in (set, frozenset) else value


class _SetInOrder:
    """What a set is pickled as; it comes back as a set."""

    def __init__(self, members: set[Any] | frozenset[Any]) -> None:
        self._members = members

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return type(self._members), (sorted(self._members, key=pickle.dumps),)


def _equal_values(left: Any, right: Any) -> bool:
    """Whether two options say the same, by value and type: 1 is not True. A live object is equal to itself alone.

    What cannot be hashed may change, so that its value of now says nothing; and filesystems compare by fsspec's token.
    """
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return _typed(left) == _typed(right) and all(_equal_values(value, right[name]) for name, value in left.items())
    if type(left) in (list, tuple):
        return len(left) == len(right) and all(map(_equal_values, left, right))
    if type(left) in (set, frozenset):
        return _typed(left) == _typed(right)
    if type(left).__hash__ is None or isinstance(left, AbstractFileSystem):
        return False
    try:
        return bool(left == right)
    except Exception:  # whatever the comparison of an unknown object raises
        return False


def _typed(values: Iterable[Any]) -> set[tuple[type, Any]]:
    return {(type(value), value) for value in values}


def _hash_of(value: Any) -> int:
    """A hash that goes with `_equal_values`: of the types alone, where nothing is known of a value."""
    if type(value) is dict:
        return hash(frozenset((name, _hash_of(each)) for name, each in value.items()))
    if type(value) in (list, tuple):
        return hash((type(value), *map(_hash_of, value)))
    return hash((type(value), value if type(value) in _PLAIN or isinstance(value, Recipe) else None))
