"""Which part of a recipe stores at different places have in common: the filesystem, but for the path in it."""

from __future__ import annotations

from typing import Any

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.cached import CachingFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.reference import ReferenceFileSystem
from fsspec.registry import registry as imported_implementations

from managed_store._chain import Link, parts_of
from managed_store._levels import OPTIONS_OF_LAYERING
from managed_store._recipe import Recipe

__all__ = ["is_quickly_shared", "shared_part"]

# Filesystems that serve what one place holds, or that dissolve into another.
_OF_ONE_PLACE = (AbstractArchiveFileSystem, AsyncFileSystemWrapper, DirFileSystem, ReferenceFileSystem)


def shared_part(recipe: Recipe) -> tuple[Recipe, str | None]:
    """Take a recipe apart. Imports the backend.

    Parameters
    ----------
    recipe : Recipe
        The recipe of one store.

    Returns
    -------
    recipe : Recipe
        That of the filesystem. It is the same for stores at other paths in it.
    path : str or None
        The root of the store in that filesystem; None if the filesystem is there for this one place, as that of an
        archive or of a file of references is: stores share it if their recipes are equal.
    """
    *caches, last = recipe.links()
    if not _has_paths(last):
        return recipe, None
    if not caches:
        return Recipe(f"{_name(last.cls)}://", last.options, twin_of=last.cls), last.location
    cache = caches[0]
    if len(caches) > 1 or not issubclass(cache.cls, CachingFileSystem) or _of_url(recipe.url, last):
        return recipe, None
    options = {**cache.options, last.protocol: last.options}
    return Recipe(f"{cache.protocol}::{last.protocol}://", options), last.location


def _has_paths(link: Link) -> bool:
    """Whether one filesystem, made from the options of a link, serves any path."""
    return not issubclass(link.cls, _OF_ONE_PLACE) and link.options.keys().isdisjoint(OPTIONS_OF_LAYERING)


def _name(cls: Any) -> str:
    return cls.protocol if isinstance(cls.protocol, str) else str(cls.protocol[0])


def _of_url(url: str, link: Link) -> dict[str, Any]:
    """The options that a filesystem takes from the URL: the host, where a connection is to one host."""
    options: dict[str, Any] = link.cls._get_kwargs_from_urls(parts_of(url)[-1][1])
    return options


def is_quickly_shared(recipe: Recipe) -> bool:
    """Whether the backend is imported already, so that `shared_part` does not block."""
    return all(protocol in imported_implementations for protocol in recipe.protocols)
