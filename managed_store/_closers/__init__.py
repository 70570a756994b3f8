"""How each kind of filesystem lets go, and the registry in which a filesystem finds its closer.

Closers are registered by protocol or by the qualified name of a filesystem class, so that no backend is imported for
them, and looked up along the class hierarchy, nearest first.
"""

from __future__ import annotations

from managed_store._closers._closer import Closer, retire_finalizers, retire_own_finalizers
from managed_store._closers._layers import ElsewhereCloser, Layer, LayerCloser
from managed_store._closers._registry import building, closer_for, register_closer

__all__ = [
    "Closer",
    "Layer",
    "building",
    "closer_for",
    "closer_of",
    "register_closer",
    "retire_finalizers",
    "retire_own_finalizers",
]


def closer_of(layer: Layer) -> Closer:
    """Make the closer of a layer and all that it stands on."""
    filesystem = layer.filesystem
    own = Closer(filesystem) if layer.borrowed else closer_for(filesystem)
    # Either is missing while the constructor fails.
    loop, asynchronous = getattr(filesystem, "loop", None), getattr(filesystem, "asynchronous", True)
    if type(filesystem).async_impl and not asynchronous and loop is not None:
        own = ElsewhereCloser(own, loop)
    if not layer.inner and not layer.release:
        return own
    return LayerCloser(layer, own, map(closer_of, layer.inner))
