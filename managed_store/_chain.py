"""A URL and its options, taken apart into the links of a chain: one filesystem each, outermost first.

fsspec does this with a private function, which builds wrong paths for some chains and drops what it does not expect.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsspec.core import split_protocol
from fsspec.registry import get_filesystem_class, known_implementations
from fsspec.registry import registry as registered_implementations

from managed_store._redaction import redacted
from managed_store.errors import ArgumentError

__all__ = ["DECIDED_HERE", "Link", "check_levels", "links_of", "protocols_of"]

# The protocols of fsspec's own filesystems that are laid over another one.
_LAYERED = frozenset(
    {
        "asyncwrapper", "async_wrapper", "blockcache", "cached", "dir", "filecache", "libarchive", "reference",
        "simplecache", "tar", "zip",
    }
)  # fmt: skip

# The packages whose other filesystems are known to stand by themselves.
_STAND_ALONE = ("fsspec.", "gcsfs.", "s3fs.", "adlfs.")

# What fsspec takes for every filesystem.
_EVERYWHERE = {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous"}

# The options that say what a filesystem is laid over, where the URL does not.
_OPTIONS_OF_LAYERING = ("fo", "fs", "target_protocol")

# What a managed store decides itself, for every filesystem of a chain.
DECIDED_HERE = ("asynchronous", "skip_instance_cache", "loop")

# What `fsspec.open` takes for itself where it opens a URL: never options of the filesystem.
_OPTIONS_OF_OPEN = ("compression", "encoding", "errors", "expand", "mode", "name_function", "newline", "num")


@dataclass(frozen=True)
class Link:
    """One filesystem of a chain, not yet built.

    Attributes
    ----------
    protocol : str
        Its protocol.
    cls : type
        Its class.
    location : str
        The part of the URL that is its own, as the class spells paths; empty if there is none.
    options : dict
        Its options alone: those that the user gave for it, and those that the URL holds.
    """

    protocol: str
    cls: Any
    location: str
    options: dict[str, Any] = field(repr=False)


def protocols_of(url: str) -> list[str]:
    """The protocols of a chain, outermost first."""
    return [protocol for protocol, _ in _parts(url)]


def check_levels(url: str, options: Mapping[str, Any]) -> None:
    """Check that each part of a chain is there, and each option at its level. Imports no backend.

    Raises
    ------
    ArgumentError
        A part is missing, a filesystem that stands by itself is laid over another, or an option has no place.
    """
    parts = _parts(url)
    protocols = [protocol for protocol, _ in parts]
    if len(parts) > 1 and not all(text for _, text in parts):
        raise ArgumentError(
            f"url has an empty part in the chain {redacted(url)!r}. Write a protocol or a URL between each '::', as in "
            f"'simplecache::https://host/data.zarr'."
        )
    for outer in protocols[:-1]:
        known = str(known_implementations.get(outer, {}).get("class", ""))
        if outer not in _LAYERED and known.startswith(_STAND_ALONE):
            raise ArgumentError(
                f"url lays {outer!r} over another filesystem in {redacted(url)!r}, but {outer!r} stands by itself. "
                f"What can be laid over another comes first: dir, filecache, reference, simplecache, zip, …"
            )
    last = options if len(parts) == 1 else options.get(protocols[-1]) or {}
    if protocols[-1] in _LAYERED and not any(name in last for name in _OPTIONS_OF_LAYERING):
        raise ArgumentError(
            f"url names no filesystem for {protocols[-1]!r} to be laid over. Write a chain, such as "
            f"'{protocols[-1]}::https://host/path', or give storage_options['target_protocol'] or ['fo']."
        )
    for name, value in options.items():
        if isinstance(value, Mapping) and name in known_implementations and name not in protocols:
            raise ArgumentError(
                f"storage_options[{name!r}] holds options for the protocol {name!r}, which is not in {redacted(url)!r}."
            )
    for index, protocol in enumerate(protocols):
        if protocol in _LAYERED and protocol != "libarchive":  # which is not fsspec's own package
            level = options.get(protocol) or {}
            given = {**level, **(options if index == 0 else {})}.keys() - {*protocols, *_OPTIONS_OF_OPEN, "protocol"}
            if misplaced := sorted(given - _parameters(get_filesystem_class(protocol))):
                raise ArgumentError(
                    f"storage_options[{misplaced[0]!r}] is no option of {protocol!r}. Options of an inner filesystem "
                    f"stand under its protocol: storage_options={{{protocols[-1]!r}: {{{misplaced[0]!r}: …}}}}."
                )


def links_of(url: str, options: Mapping[str, Any]) -> list[Link]:
    """Take a URL apart, and give each link its options. Imports the backends.

    The options of the outermost link stand in `options` themselves or under its protocol, those of the others each
    under its protocol, as everywhere in fsspec.

    Raises
    ------
    ArgumentError
        The URL and the options say different things.
    """
    given = dict(options)
    parts = _parts(url)
    if "protocol" in given:  # for a URL without one, as fsspec takes it
        parts[-1] = (given.pop("protocol") or parts[-1][0], parts[-1][1])
    links: list[Link] = []
    for index, (protocol, part) in reversed(list(enumerate(parts))):
        own = given.pop(protocol, None) or {}
        if index == 0:
            own = {**own, **{name: value for name, value in given.items() if name not in _OPTIONS_OF_OPEN}}
        links.insert(0, _link(protocol, part, {k: v for k, v in own.items() if k not in DECIDED_HERE}))
    return links


def _link(protocol: str, part: str, options: dict[str, Any]) -> Link:
    cls = get_filesystem_class(protocol)
    for name, value in cls._get_kwargs_from_urls(part).items():
        if options.setdefault(name, value) != value:
            raise ArgumentError(f"storage_options[{name!r}] and the url say different things. Leave one of them out.")
    return Link(protocol, cls, cls._strip_protocol(part), options)


def _parameters(cls: type) -> set[str]:
    """The names of the parameters of a class's constructor, and of those of its bases."""
    signatures = (inspect.signature(each.__init__) for each in cls.__mro__ if "__init__" in vars(each))  # type: ignore[misc]
    return {name for signature in signatures for name in signature.parameters} | _EVERYWHERE


def _parts(url: str) -> list[tuple[str, str]]:
    """The protocol and the text of each part of a chain, outermost first."""
    texts = url.split("::")
    if len(texts) == 1:
        return [(split_protocol(url)[0] or "file", url)]
    # In a chain, and only there, a bare word that is a protocol means that protocol: "simplecache::https://…".
    known = {*known_implementations, *registered_implementations}
    return [(text, f"{text}://") if text in known else (split_protocol(text)[0] or "file", text) for text in texts]
