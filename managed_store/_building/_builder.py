"""Builds the links of a chain, each by itself, from the inside out.

fsspec builds a chain from the outside in, and lets each filesystem make the next: the inner ones then come from its
instance cache, in a mode that does not fit, and nobody holds the one that loaded a file of references. Here every
filesystem is known, and so can be closed, also where a constructor further out fails.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fsspec.asyn import get_loop
from fsspec.dircache import DirCache
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from managed_store._borrowed import check_loops
from managed_store._caches import ReadThrough, fetch
from managed_store._chain import Link, links_of, wants_listings_cache
from managed_store._closers import Layer, building, closer_of, retire_finalizers
from managed_store._kinds import ARCHIVE, ASYNC_WRAPPER, CACHE, FOLDER, REFERENCES, SIMPLE_CACHE, WHOLE_FILE_CACHE, kind
from managed_store._recipe import Recipe
from managed_store._threaded import ThreadedFileSystem
from managed_store.errors import ArgumentError

__all__ = ["Builder"]

_logger = logging.getLogger("managed_store")


class Builder:
    """Builds the links of one chain, and remembers what it has built, should a later one fail.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        The loop on which the outermost filesystem is to be awaited.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._built: list[Layer] = []

    def of_recipe(self, recipe: Recipe, *, asynchronous: bool) -> tuple[Layer, str]:
        """Build the chain of a recipe; return its outermost layer, and the path in it."""
        return self.of_links(recipe.links(), asynchronous=asynchronous)

    def of_links(self, links: list[Link], *, asynchronous: bool) -> tuple[Layer, str]:
        """Build a chain.

        Parameters
        ----------
        links : list of Link
            The links, outermost first.
        asynchronous : bool
            Whether the outermost may be asynchronous: whether it is to be awaited, rather than called by the
            synchronous filesystem around it. One that cannot be is built as it is.
        """
        link, *inner = links
        if issubclass(link.cls, (kind(FOLDER), kind(ASYNC_WRAPPER))):
            return self._dissolved(link, inner, asynchronous=asynchronous)
        if issubclass(link.cls, kind(CACHE)):
            return self._cache(link, inner)
        if issubclass(link.cls, kind(ARCHIVE)):
            return self._archive(link, inner)
        if issubclass(link.cls, kind(REFERENCES)):
            from managed_store._building._references import build_references

            return build_references(self, link, inner, asynchronous=asynchronous)
        return self._plain(link, inner, asynchronous=asynchronous)

    def add(self, filesystem: Any, *, caches_listings: bool = False, **parts: Any) -> Layer:
        """Take over a filesystem that has just been built."""
        retire_finalizers(filesystem)
        if not caches_listings:
            filesystem.dircache = DirCache(use_listings_cache=False)
        layer = Layer(filesystem, **parts)
        self._built.append(layer)
        return layer

    def made_asynchronous(self, layer: Layer) -> Layer:
        """Lay threads around a filesystem that cannot be awaited."""
        filesystem = layer.filesystem
        if isinstance(filesystem, kind(CACHE)):
            threaded = ThreadedFileSystem(
                object.__getattribute__(filesystem, "fs"),
                ReadThrough(filesystem),
                # The others keep a table of what they hold, and do not guard it.
                limit=None if isinstance(filesystem, kind(SIMPLE_CACHE)) else 1,
            )
        elif filesystem.async_impl and filesystem.asynchronous:
            return layer
        else:
            threaded = ThreadedFileSystem(filesystem)
        return self.add(threaded, inner=(layer,))

    def borrow(self, filesystem: Any, *, asynchronous: bool) -> Layer:
        """Take a filesystem of the user's, which is used, and never closed."""
        if type(filesystem).async_impl and filesystem.asynchronous:
            if not asynchronous:
                raise ArgumentError(
                    "storage_options['fs'] is an asynchronous filesystem, and is to be called synchronously here. "
                    "Give one that was made without asynchronous=True."
                )
            check_loops("storage_options['fs']", filesystem, self._loop)
        return Layer(filesystem, borrowed=True)

    def target(self, link: Link, inner: list[Link], *, asynchronous: bool) -> tuple[Layer, str]:
        """Build the filesystem that `link` is laid over; takes what says which from the options of the link."""
        options = link.options
        filesystem, protocol = options.pop("fs", None), options.pop("target_protocol", None)
        target_options, location = options.pop("target_options", None) or {}, options.pop("fo", None)
        if isinstance(filesystem, Recipe):
            return self.of_recipe(filesystem, asynchronous=asynchronous)
        if isinstance(filesystem, AbstractFileSystem):
            location = location or (inner[0].location if inner else link.location)
            layer = self.borrow(filesystem, asynchronous=asynchronous)
            return layer, filesystem._strip_protocol(location) if location else ""
        return self.beneath(
            inner, location or link.location, {**target_options, "protocol": protocol}, asynchronous=asynchronous
        )

    def beneath(
        self, inner: list[Link], location: str, options: dict[str, Any], *, asynchronous: bool
    ) -> tuple[Layer, str]:
        """Build what a filesystem is laid over: the rest of the chain, or else what its own options name.

        Parameters
        ----------
        inner : list of Link
            The rest of the chain; empty if there is none.
        location : str
            The URL or path that the options name.
        options : dict
            The options for it, with its protocol, which may be None. For a chain, those that it has not itself.
        asynchronous : bool
            As in `of_links`.
        """
        if inner:
            del options["protocol"]  # the URL says it
            links = [inner[0].over(options), *inner[1:]]
        else:
            links = links_of(location, options)
        return self.of_links(links, asynchronous=asynchronous)

    def abandon(self, error: BaseException) -> None:
        """Close what was built before `error`, that which failed in its constructor included."""
        for filesystem in _half_built(error):
            if all(layer.filesystem is not filesystem for layer in self._built):
                self._built.append(Layer(filesystem))
        for layer in reversed(self._built):
            try:
                closer_of(layer).force()
            except Exception as failure:  # of a closer that finds less than it expects: `error` says why
                _logger.debug("Cutting off %s: %s", type(layer.filesystem).__name__, type(failure).__name__)

    def _dissolved(self, link: Link, inner: list[Link], *, asynchronous: bool) -> tuple[Layer, str]:
        """A folder of another filesystem is that filesystem, with a longer path."""
        root = link.options.pop("path", None)
        layer, path = self.target(link, inner, asynchronous=asynchronous)
        if root is not None:
            path = layer.filesystem._strip_protocol(root)
        below = link.location.lstrip("/") if link.location != path else ""
        return layer, f"{path.rstrip('/')}/{below}" if path and below else path or below

    def _cache(self, link: Link, inner: list[Link]) -> tuple[Layer, str]:
        layer, path = self.target(link, inner, asynchronous=False)
        release: tuple[Callable[[], None], ...] = ()
        if link.options.get("cache_storage", "TMP") == "TMP":
            folder = link.options["cache_storage"] = tempfile.mkdtemp(prefix="managed-store-")
            release = (functools.partial(shutil.rmtree, folder, ignore_errors=True),)
        try:
            cache = link.cls(fs=layer.filesystem, skip_instance_cache=True, **link.options)
        except BaseException:
            for undo in release:
                undo()
            raise
        return self.add(cache, inner=(layer,), release=release), path or link.location

    def _archive(self, link: Link, inner: list[Link]) -> tuple[Layer, str]:
        layer, path = self.target(link, inner, asynchronous=False)
        mode = link.options.get("mode", "r")
        if isinstance(layer.filesystem, kind(WHOLE_FILE_CACHE)) and mode == "r":
            fetch(layer.filesystem, path)  # whole or not at all, which the cache itself does not see to
        file = layer.filesystem.open(path, {"a": "r+b"}.get(mode, f"{mode}b"))
        try:
            archive = link.cls(fo=file, skip_instance_cache=True, **link.options)
        except BaseException:
            file.close()
            raise
        return self.add(archive, inner=(layer,), release=(file.close,)), link.location

    def _plain(self, link: Link, inner: list[Link], *, asynchronous: bool) -> tuple[Layer, str]:
        options = {**link.options, **_nested(inner)}
        if issubclass(link.cls, LocalFileSystem):
            # A write to a zarr store makes the folders it needs; fsspec's local filesystem does not by default.
            options.setdefault("auto_mkdir", True)
        for sessions in ("client_kwargs", "session_kwargs"):  # fsspec's name and gcsfs's for the options of a session
            if isinstance(level := options.get(sessions), Mapping) and "connector" in level:
                # The user's own connector is borrowed; aiohttp would close it with the session.
                options[sessions] = {"connector_owner": False, **level}
        if link.cls.async_impl:
            options["asynchronous"] = asynchronous
            check_loops(link.name, link.options, self._loop if asynchronous else get_loop())
        with building(link.cls, options):
            filesystem = link.cls(skip_instance_cache=True, **options)
        return self.add(filesystem, caches_listings=wants_listings_cache(link.options)), link.location


def _nested(inner: list[Link]) -> dict[str, Any]:
    """The options by which a filesystem that this package does not know makes the one that it is laid over."""
    if not inner:
        return {}
    link, *further = inner
    options = {**link.options, **_nested(further), "skip_instance_cache": True}
    return {"target_protocol": link.protocol, "target_options": options, "fo": link.location}


def _half_built(error: BaseException) -> Iterator[AbstractFileSystem]:
    """The filesystems whose constructors were under way when `error` was raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        candidate = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and isinstance(candidate, AbstractFileSystem):
            yield candidate
