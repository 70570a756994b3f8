"""Building the private filesystem of a recipe, and all that it stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from managed_store._building._builder import Builder
from managed_store._caches import ReadThrough
from managed_store._closers import Layer, retire_own_finalizers
from managed_store._recipe import Recipe

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem

__all__ = ["Built", "build"]


@dataclass(eq=False, repr=False)
class Built:
    """What a recipe gives.

    Attributes
    ----------
    filesystem : fsspec.asyn.AsyncFileSystem
        Asynchronous, found in no cache, and bound to no loop until its first request.
    path : str
        The root of the store, as this filesystem spells it.
    layer : Layer
        The same filesystem with all that it stands on.
    """

    filesystem: AsyncFileSystem
    path: str
    layer: Layer

    def forget_listings(self) -> None:
        """Empty the listing caches, from any thread: a key was written or deleted by way of another session."""
        for each in self.layer.filesystems():
            each.invalidate_cache()

    def forget_files(self, keys: Sequence[str], path: str | None) -> None:
        """Read `keys` below `path` from the server again, should a local cache hold them. From any thread, as above."""
        reader = getattr(self.filesystem, "read_file", None)
        if isinstance(reader, ReadThrough):
            root = (self.path if path is None else path).rstrip("/")
            for key in keys:
                reader.mark_stale(f"{root}/{key}")

    def retire_finalizers(self) -> None:
        """Detach the finalizers that the backends have registered since the filesystems were built."""
        for each in self.layer.filesystems():
            retire_own_finalizers(each)


def build(recipe: Recipe, loop: asyncio.AbstractEventLoop) -> Built:
    """Build the filesystem of a recipe. May block: backends import packages, look up credentials and connect here.

    Parameters
    ----------
    recipe : Recipe
        What to build.
    loop : asyncio.AbstractEventLoop
        The loop on which it is to be awaited.

    Raises
    ------
    Exception
        Whatever a backend raises. What had been built by then is closed again.
    """
    builder = Builder(loop)
    try:
        layer, path = builder.of_recipe(recipe, asynchronous=True)
        layer = builder.made_asynchronous(layer)
    except BaseException as error:
        builder.abandon(error)
        raise
    return Built(layer.filesystem, path, layer)
