"""A URL and its options, taken apart into the links of a chain: one filesystem each, outermost first.

fsspec does this with a private function, which builds wrong paths for some chains and drops what it does not expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.config import apply_config
from fsspec.core import split_protocol
from fsspec.registry import get_filesystem_class, known_implementations
from fsspec.registry import registry as registered_implementations

from managed_store._options import DECIDED_HERE, copied
from managed_store.errors import ArgumentError

__all__ = ["OPTIONS_OF_OPEN", "Link", "links_of", "parts_of", "protocols_of", "wants_listings_cache"]

# What `fsspec.open` takes for itself where it opens a URL: never options of the filesystem.
OPTIONS_OF_OPEN = ("compression", "encoding", "errors", "expand", "mode", "name_function", "newline", "num")


# Any of these among the options of a filesystem says that it is to cache listings.
_LISTINGS_CACHE_OPTIONS = ("use_listings_cache", "listings_expiry_time", "max_paths")


@dataclass(eq=False, repr=False)
class Link:
    """One filesystem of a chain, not yet built. Shows itself to nobody: its options hold secrets.

    Attributes
    ----------
    protocol : str
        Its protocol.
    cls : type
        Its class.
    location : str
        The part of the URL that is its own, as the class spells paths; empty if there is none.
    options : dict
        Its options alone: those that the user gave for it, those that the URL holds, and for the rest those of fsspec's
        own configuration (``fsspec.config``: files, and environment variables such as ``FSSPEC_S3_ENDPOINT_URL``).
    name : str
        What the user knows these options by, for messages.
    """

    protocol: str
    cls: Any
    location: str
    options: dict[str, Any]
    name: str = "storage_options"

    def over(self, options: Mapping[str, Any]) -> Link:
        """The same link, its options laid over others."""
        return Link(self.protocol, self.cls, self.location, {**options, **self.options}, self.name)


def protocols_of(url: str) -> list[str]:
    """The protocols of a chain, outermost first."""
    return [protocol for protocol, _ in parts_of(url)]


def wants_listings_cache(options: Mapping[str, Any]) -> bool:
    """Whether the options of a filesystem ask for a cache of listings."""
    return any(options.get(name) for name in _LISTINGS_CACHE_OPTIONS)


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
    parts = parts_of(url)
    if "protocol" in given:  # for a URL without one, as fsspec takes it
        parts[-1] = (given.pop("protocol") or parts[-1][0], parts[-1][1])
    links: list[Link] = []
    for index, (protocol, part) in reversed(list(enumerate(parts))):
        own = given.pop(protocol, None) or {}
        if index == 0:
            own = {**own, **{name: value for name, value in given.items() if name not in OPTIONS_OF_OPEN}}
        name = f"storage_options[{protocol!r}]" if index else "storage_options"
        links.insert(0, _link(protocol, part, {k: v for k, v in own.items() if k not in DECIDED_HERE}, name))
    return links


def _link(protocol: str, part: str, options: dict[str, Any], options_name: str) -> Link:
    cls = get_filesystem_class(protocol)
    for name, value in cls._get_kwargs_from_urls(part).items():
        if options.setdefault(name, value) != value:
            raise ArgumentError(f"{options_name}[{name!r}] and the url say different things. Leave one of them out.")
    return Link(protocol, cls, cls._strip_protocol(part), {**_configured(cls), **options}, options_name)


def _configured(cls: Any) -> dict[str, Any]:
    """A copy of the options of fsspec's configuration for a class, but for those that are decided here."""
    not_taken = (*DECIDED_HERE, *_LISTINGS_CACHE_OPTIONS)
    return {name: copied(value) for name, value in apply_config(cls, {}).items() if name not in not_taken}


def parts_of(url: str) -> list[tuple[str, str]]:
    """The protocol and the text of each part of a chain, outermost first."""
    texts = url.split("::")
    if len(texts) == 1:
        return [(split_protocol(url)[0] or "file", url)]
    # In a chain, and only there, a bare word means a protocol: "simplecache::https://…". The last part can be a path.
    known = {*known_implementations, *registered_implementations}
    words = [text for text in texts[:-1] if "://" not in text] + [texts[-1]] * (texts[-1] in known)
    return [(text, f"{text}://") if text in words else (split_protocol(text)[0] or "file", text) for text in texts]
