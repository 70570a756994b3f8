"""Checks of a chain of filesystems, as far as they need no backend: its parts, and the levels of its options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fsspec.registry import get_filesystem_class, known_implementations

from managed_store._chain import OPTIONS_OF_OPEN
from managed_store._options import DECIDED_HERE
from managed_store._redaction import redacted
from managed_store.errors import ArgumentError, ArgumentTypeError

__all__ = ["OPTIONS_OF_LAYERING", "check_levels", "check_parts"]

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
_EVERYWHERE = {"use_listings_cache", "listings_expiry_time", "max_paths", *DECIDED_HERE}

# The options that say what a filesystem is laid over, where the URL does not.
OPTIONS_OF_LAYERING = ("fo", "fs", "target_protocol")


def check_parts(url: str, parts: Sequence[tuple[str, str]]) -> None:
    """Check that each part of a chain is there, and is one that can stand where it stands.

    Raises
    ------
    ArgumentError
        A part is empty, or a filesystem that stands by itself is laid over another.
    """
    if "::" in url and not all(url.split("::")):
        raise ArgumentError(
            f"url has an empty part in the chain {redacted(url)!r}. Write a protocol or a URL between each '::', as in "
            f"'simplecache::https://host/data.zarr'."
        )
    for outer, _ in parts[:-1]:
        known = str(known_implementations.get(outer, {}).get("class", ""))
        if outer not in _LAYERED and known.startswith(_STAND_ALONE):
            raise ArgumentError(
                f"url lays {outer!r} over another filesystem in {redacted(url)!r}, but {outer!r} stands by itself. "
                f"What can be laid over another comes first: dir, filecache, reference, simplecache, zip, …"
            )


def check_levels(url: str, parts: Sequence[tuple[str, str]], options: Mapping[str, Any]) -> None:
    """Check that each option stands at its level.

    Raises
    ------
    ArgumentError
        There is nothing for a filesystem to be laid over, or an option has no place.
    ArgumentTypeError
        The options of a level are no mapping.
    """
    protocols = [protocol for protocol, _ in parts]
    for protocol in protocols if len(parts) > 1 else ():
        _check_level(f"storage_options[{protocol!r}]", protocol, options.get(protocol))
    last = options if len(parts) == 1 else options.get(protocols[-1]) or {}
    if protocols[-1] in _LAYERED and not any(name in last for name in OPTIONS_OF_LAYERING):
        raise ArgumentError(
            f"url names no filesystem for {protocols[-1]!r} to be laid over. Write a chain, such as "
            f"'{protocols[-1]}::https://host/path', or give storage_options['target_protocol'] or ['fo']."
        )
    for name, value in options.items():
        if name in known_implementations and name not in protocols and isinstance(value, Mapping):
            raise ArgumentError(
                f"storage_options[{name!r}] holds options for the protocol {name!r}, which is not in {redacted(url)!r}."
            )
    for index, protocol in enumerate(protocols):
        if protocol in _LAYERED and protocol != "libarchive":  # which is not fsspec's own package
            level = options.get(protocol) or {}
            given = {**level, **(options if index == 0 else {})}.keys() - {*protocols, *OPTIONS_OF_OPEN, "protocol"}
            if misplaced := sorted(given - _parameters(get_filesystem_class(protocol))):
                raise ArgumentError(
                    f"storage_options[{misplaced[0]!r}] is no option of {protocol!r}. Options of an inner filesystem "
                    f"stand under its protocol: storage_options={{{protocols[-1]!r}: {{{misplaced[0]!r}: …}}}}."
                )


def _check_level(name: str, protocol: str, level: object) -> None:
    """Check the options of one filesystem of a chain, as far as they do not depend on which one it is."""
    if level is None:
        return
    if not isinstance(level, Mapping):
        raise ArgumentTypeError(
            f"{name} must be a mapping of the options for {protocol!r}, such as {{'anon': True}}; "
            f"got {type(level).__name__}."
        )
    for decided in ("asynchronous", "skip_instance_cache"):
        if level.get(decided, True) is not True:
            raise ArgumentError(
                f"{name}[{decided!r}] must be True or absent: a managed store builds private filesystems, each in the "
                f"mode that the one around it needs. Leave it out."
            )
    if level.get("loop") is not None:
        raise ArgumentError(f"{name}['loop'] must be absent: a managed store opens each filesystem on its own loop.")


def _parameters(cls: type) -> set[str]:
    """The names of the parameters of a class's constructor, and of those of its bases."""
    signatures = (inspect.signature(each.__init__) for each in cls.__mro__ if "__init__" in vars(each))  # type: ignore[misc]
    return {name for signature in signatures for name in signature.parameters} | _EVERYWHERE
