"""Building the private filesystem of a recipe, and all that it stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from managed_store._building._builder import Builder
from managed_store._closers import Layer
from managed_store._recipe import Recipe

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem

__all__ = ["Built", "build"]


@dataclass(frozen=True)
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


def build(recipe: Recipe) -> Built:
    """Build the filesystem of a recipe. May block: backends import packages, look up credentials and connect here.

    Raises
    ------
    Exception
        Whatever a backend raises. What had been built by then is closed again.
    """
    builder = Builder()
    try:
        layer, path = builder.of_recipe(recipe, asynchronous=True)
        layer = builder.made_asynchronous(layer)
    except BaseException as error:
        builder.abandon(error)
        raise
    return Built(layer.filesystem, path, layer)
