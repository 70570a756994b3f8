"""Building a `reference://` filesystem: the table of references, and a filesystem for each protocol in it.

fsspec's constructor reads the table by way of a filesystem that nobody holds afterwards, and makes one filesystem for
the first protocol that it meets.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fsspec.core import split_protocol
from fsspec.implementations.reference import LazyReferenceMapper
from fsspec.spec import AbstractFileSystem

from managed_store._chain import Link, links_of
from managed_store._closers import Layer

if TYPE_CHECKING:
    from managed_store._building._builder import Builder

__all__ = ["build_references"]


def build_references(builder: Builder, link: Link, inner: list[Link], *, asynchronous: bool) -> tuple[Layer, str]:
    """Build the filesystem of `link`, which reads its table from the links `inner`, or from its option ``fo``."""
    options = dict(link.options)
    given, protocol = options.pop("fs", None), options.pop("remote_protocol", None)
    remote_options = options.pop("remote_options", None) or {}
    table, loader = _table(builder, link, inner, options)

    def fitting(layer: Layer) -> Layer:
        return builder.made_asynchronous(layer) if asynchronous else layer

    local = fitting(builder.of_links(links_of("file://", {}), asynchronous=asynchronous)[0])
    references = link.cls(fo=table, fs={None: local.filesystem}, asynchronous=asynchronous, **options)
    if isinstance(references.references, dict):
        references.references = {key: _plain(value) for key, value in references.references.items()}

    needed = _protocols(references)
    layers = [local, *loader]
    if isinstance(given, AbstractFileSystem):
        layers.append(fitting(builder.borrow(given, asynchronous=asynchronous)))
        names = (given.protocol,) if isinstance(given.protocol, str) else given.protocol
        filesystems: dict[str, Any] = dict.fromkeys(names, layers[-1].filesystem)
    else:
        filesystems = {}
        given = given if isinstance(given, Mapping) else {}
        protocol = protocol or next(iter(needed), None)
        for each in dict.fromkeys([*([protocol] if protocol else []), *needed, *filter(None, given)]):
            own = given.get(each, remote_options if each == protocol else {})
            if isinstance(own, AbstractFileSystem):
                layer = builder.borrow(own, asynchronous=asynchronous)
            else:
                layer, _ = builder.of_links(links_of(f"{each}://", dict(own)), asynchronous=asynchronous)
            layers.append(fitting(layer))
            filesystems[each] = layers[-1].filesystem
    references.fss.update(filesystems)
    # Its cache of listings is made from the table, which does not change.
    return builder.add(references, caches_listings=True, inner=tuple(layers)), link.location


def _table(builder: Builder, link: Link, inner: list[Link], options: dict[str, Any]) -> tuple[Any, tuple[Layer, ...]]:
    """The table of references, and the layers that it is read from."""
    location, protocol = options.pop("fo", None), options.pop("target_protocol", None)
    target_options = {**(options.pop("ref_storage_args", None) or options.pop("target_options", None) or {})}
    cache_size = options.get("cache_size", 128)
    compression = target_options.pop("compression", None)
    if not inner and not isinstance(location, str):  # the table itself
        return location, ()
    layer, path = builder.beneath(inner, location, {**target_options, "protocol": protocol}, asynchronous=False)
    filesystem: Any = layer.filesystem
    if ".json" not in path and (path.endswith(("parq", "parquet", "/")) or filesystem.isdir(path)):
        engine = "pyarrow" if importlib.util.find_spec("pyarrow") else "fastparquet"  # pandas gives up the other
        return LazyReferenceMapper(path.rstrip("/"), fs=filesystem, cache_size=cache_size, engine=engine), (layer,)
    with filesystem.open(path, "rb", compression=compression) as file:
        return json.load(file), (layer,)


def _plain(value: Any) -> Any:
    """A reference that holds its bytes, as these bytes: fsspec gives the size of their spelling otherwise."""
    if isinstance(value, str):
        return base64.b64decode(value[7:]) if value.startswith("base64:") else value.encode()
    if isinstance(value, bytes) and value.startswith(b"base64:"):
        return base64.b64decode(value[7:])
    return value


def _protocols(references: Any) -> list[str]:
    """The protocols that the references lead to, the first one first; of a table of parquet files only the first."""
    urls: Iterable[Any] = (value[0] for value in references.references.values() if isinstance(value, list | tuple))
    found: dict[str, None] = {}
    for url in urls:
        protocol, _ = split_protocol(references.target if url is None else url)
        if protocol is not None:
            found.setdefault(protocol)
            if isinstance(references.references, LazyReferenceMapper):
                break
    return list(found)
