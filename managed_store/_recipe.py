"""How to build a private filesystem from a URL and options: checked, compared and pickled.

Nothing here imports a backend or opens a connection. A recipe is what a pickle carries, never a session: fsspec's own
pickle forgets ``skip_instance_cache``, and two unpickled copies would meet in fsspec's instance cache.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

from managed_store._chain import Link, links_of, parts_of, protocols_of, wants_listings_cache
from managed_store._levels import check_levels, check_parts
from managed_store._once import once
from managed_store._options import checked_options, copied, in_order, key_of
from managed_store._protocols import check_protocol
from managed_store._redaction import redacted
from managed_store.errors import (
    ArgumentError,
    ArgumentTypeError,
    ManagedStoreError,
    StoreClosedError,
    StoreCloseError,
    StoreOpenError,
)

__all__ = ["Recipe"]

_FILE_CACHES = frozenset({"blockcache", "cached", "filecache", "simplecache"})


class Recipe:
    """A URL and the options of its filesystem. It does not change.

    Two recipes are equal if they have the same URL and options of equal values. Never compared by repr or by fsspec's
    token: two different secrets can look alike there.

    Parameters
    ----------
    url : str
        What fsspec opens: a URL, a chain of URLs, or a plain path.
    options : dict
        The options, whose containers belong to the recipe; live objects among them are borrowed.
    twin_of : type, optional
        The class of the filesystem, where the recipe was taken from one. The URL serves messages alone then.
    location : str, optional
        The root of the store in such a filesystem, as that spells it.
    """

    def __init__(self, url: str, options: dict[str, Any], twin_of: type | None = None, location: str = "") -> None:
        self.url = url
        self.options = options
        self.twin_of = twin_of
        self.location = location

    @classmethod
    def checked(cls, url: object, storage_options: object, *, beneath: Mapping[str, Any] | None = None) -> Recipe:
        """Check all that can be known without I/O and without importing a backend, and make the recipe.

        Parameters
        ----------
        url, storage_options : object
            What the user has given.
        beneath : mapping, optional
            Options that have been checked already; those of the user are laid over them.

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
        if beneath:
            options = {**beneath, **options}
        parts = parts_of(text)
        check_parts(text, parts)
        for protocol, part in parts:
            check_protocol(protocol, part, text)
        check_levels(text, parts, options)
        return cls.with_copies(text, options)

    @classmethod
    def with_copies(cls, url: str, options: dict[str, Any], twin_of: type | None = None, location: str = "") -> Recipe:
        """Make a recipe of what belongs to the user: later changes to it do not reach the recipe."""
        url, options, location = copied([url, options, location])
        return cls(url, options, twin_of, location)

    @once
    def _key(self) -> Hashable:
        return self.url, self.twin_of, self.location, key_of(self.options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.url, in_order(self.options), self.twin_of, self.location)

    def links(self) -> list[Link]:
        """The filesystems of the chain, outermost first, each with its options. Imports the backends."""
        if self.twin_of is None:
            return links_of(self.url, self.options)
        return [Link(self.protocols[0], self.twin_of, self.location, dict(self.options))]

    def closed_error(self, when: str = "") -> StoreClosedError:
        """The error for using a store that is closed: names it, and says what to do."""
        return StoreClosedError(
            f"The store {self.redacted_url!r} was closed{when}. Closing is final: make a new ManagedStore, or move "
            f"this use inside the `with` block that closed it."
        )

    def close_error(self, left_open: list[str]) -> StoreCloseError:
        """The error for what is still open after closing."""
        return StoreCloseError(f"Closing {self.redacted_url!r} left open: {', '.join(left_open)}.", left_open=left_open)

    def open_error(self, error: BaseException) -> StoreOpenError:
        """The error for a filesystem that cannot be built: not the backend's own, which zarr may take for no group."""
        if isinstance(error, ManagedStoreError):
            return StoreOpenError(f"The filesystem of {self.redacted_url!r} could not be built: {error}")
        return StoreOpenError(
            f"The filesystem of {self.redacted_url!r} could not be built: {type(error).__name__}, the cause of "
            f"this error. Check the URL and the storage_options."
        )

    def __repr__(self) -> str:
        return f"Recipe({self.redacted_url!r}, options={list(self.options)})"

    @once  # zarr asks for it again and again: it is how a store shows itself
    def redacted_url(self) -> str:
        """The URL without user info and query string, for messages."""
        return redacted(self.url)

    @once
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
