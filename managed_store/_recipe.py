"""How to build a private filesystem from a URL and options: checked, compared, pickled, and built.

Nothing here opens a connection. A recipe is what a pickle carries, never a session: fsspec's own pickle forgets
``skip_instance_cache``, and two unpickled copies would meet in fsspec's instance cache.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.core import split_protocol
from fsspec.dircache import DirCache
from fsspec.registry import known_implementations
from fsspec.registry import registry as registered_implementations

from managed_store._redaction import redacted
from managed_store.errors import ArgumentError, ArgumentTypeError, MissingPackageError, UnknownProtocolError

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

__all__ = ["Recipe", "filesystems_in"]

# The packages that an extra of this distribution installs.
_EXTRAS = {"s3fs": "s3", "adlfs": "azure"}

# What a filesystem of a managed store is always built with. A user may say the same, not the opposite.
_ALWAYS = {"asynchronous": True, "skip_instance_cache": True}

# Any of these among the user's options says that a listings cache is wanted.
_LISTINGS_CACHE_OPTIONS = ("use_listings_cache", "listings_expiry_time", "max_paths")


@dataclass(frozen=True, eq=False, repr=False)
class Recipe:
    """A URL and the options of its filesystem.

    Two recipes are equal if they have the same URL and equal option values. Never compared by repr or by fsspec's
    token: two different secrets can look alike there.

    Parameters
    ----------
    url : str
        What fsspec opens: a URL, a chain of URLs, or a plain path.
    options : mapping
        The user's storage options, as given; live objects among them are borrowed.
    """

    url: str
    options: Mapping[str, Any]

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
        options = _checked_options(storage_options)
        for protocol in _protocols(text):
            _check_protocol(protocol, text)
        return cls(sys.intern(text), options)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Recipe)
            and self.url == other.url
            and _equal_values(dict(self.options), dict(other.options))
        )

    __hash__ = None  # type: ignore[assignment]  # option values need not be hashable

    def __repr__(self) -> str:
        return f"Recipe({self.redacted_url!r}, options={list(self.options)})"

    @property
    def redacted_url(self) -> str:
        """The URL without user info and query string, for messages."""
        return redacted(self.url)

    @property
    def protocol(self) -> str:
        """The outermost protocol of the URL, ``"file"`` for a plain path."""
        return _protocols(self.url)[0]

    @property
    def wants_listings_cache(self) -> bool:
        """Whether the user's options, at any level, ask for a cache of listings.

        By default there is none: with a filesystem per event loop, a key written on one loop would stay invisible on
        another that has listed before, and gcsfs and adlfs lose keys even within one filesystem.
        """
        levels = [self.options, *(value for value in self.options.values() if isinstance(value, Mapping))]
        return any(level.get(name) for level in levels for name in _LISTINGS_CACHE_OPTIONS)

    def build(self) -> tuple[AsyncFileSystem, str]:
        """Build a new private filesystem. May block: backends import packages and look up credentials here.

        Returns
        -------
        filesystem : fsspec.asyn.AsyncFileSystem
            Found in no cache, with nothing open yet; bound to no loop until its first request.
        path : str
            The root of the store, as this filesystem spells it.
        """
        filesystem, path = fsspec.url_to_fs(self.url, **self._private_options())
        if not filesystem.async_impl:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            filesystem = AsyncFileSystemWrapper(filesystem, asynchronous=True)
        if not self.wants_listings_cache:
            for each in filesystems_in(filesystem):
                each.dircache = DirCache(use_listings_cache=False)
        return filesystem, path

    def _private_options(self) -> dict[str, Any]:
        options = {**_copied(dict(self.options)), **_ALWAYS}
        outermost, *inner = _protocols(self.url)
        if outermost in ("file", "local"):
            # A write to a zarr store makes the folders it needs; fsspec's local filesystem does not by default.
            options.setdefault("auto_mkdir", True)
        for sessions in ("client_kwargs", "session_kwargs"):  # fsspec's name and gcsfs's for the options of a session
            if isinstance(level := options.get(sessions), dict) and "connector" in level:
                # The user's own connector is borrowed; aiohttp would close it with the session.
                level.setdefault("connector_owner", False)
        for protocol in inner:
            level = options.get(protocol)
            options[protocol] = {**(level if isinstance(level, Mapping) else {}), "skip_instance_cache": True}
        return options


def filesystems_in(filesystem: AbstractFileSystem) -> Iterator[AbstractFileSystem]:
    """Yield `filesystem` and every filesystem that it wraps, outermost first."""
    yield filesystem
    inner = getattr(filesystem, "sync_fs", None)
    if inner is not None:
        yield from filesystems_in(inner)


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


def _checked_options(storage_options: object) -> dict[str, Any]:
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


def _protocols(url: str) -> list[str]:
    """The protocols of a chain, outermost first."""
    parts = url.split("::")
    if len(parts) == 1:
        return [split_protocol(url)[0] or "file"]
    # In a chain, and only there, a bare word that is a protocol means that protocol: "simplecache::https://…".
    known = {*known_implementations, *registered_implementations}
    return [part if part in known else (split_protocol(part)[0] or "file") for part in parts]


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
    """Copy the plain containers, so that later changes by the caller do not reach us; borrow all else as it is.

    Sorted by name, and with one object for each string: so equal stores have equal pickles and dask tokens.
    """
    if type(value) is dict:
        names = sorted(value) if all(type(name) is str for name in value) else value
        return {_copied(name): _copied(value[name]) for name in names}
    if type(value) in (list, tuple, set):
        return type(value)(_copied(each) for each in value)
    return sys.intern(value) if type(value) is str else value


def _equal_values(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal_values(left[key], right[key]) for key in left)
    if type(left) is type(right) and isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_equal_values, left, right))
    try:
        return type(left) is type(right) and bool(left == right)
    except Exception:  # a value whose comparison fails (an array, say) is equal to itself alone
        return False
