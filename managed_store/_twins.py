"""The recipe of a filesystem that somebody else has made: for a private twin, which leaves theirs alone."""

from __future__ import annotations

import inspect
from typing import Any

from fsspec.mapping import FSMap
from fsspec.spec import AbstractFileSystem

from managed_store._kinds import ASYNC_WRAPPER, kind
from managed_store._options import DECIDED_HERE, checked_options
from managed_store._recipe import Recipe
from managed_store._threaded import ThreadedFileSystem
from managed_store.errors import ArgumentError, ArgumentTypeError

__all__ = ["recipe_of_filesystem", "recipe_of_mapper", "recipe_of_upath"]


def recipe_of_filesystem(filesystem: object, path: object) -> Recipe:
    """The recipe of a twin of `filesystem`, for a store at `path` in it.

    fsspec notes on each filesystem the class, the positional arguments and the options that it was made from.

    Raises
    ------
    ArgumentTypeError
        `filesystem` is no fsspec filesystem, or `path` no string.
    ArgumentError
        The filesystem cannot be made a second time from what it was made from.
    """
    if not isinstance(filesystem, AbstractFileSystem):
        raise ArgumentTypeError(
            f"fs must be an fsspec filesystem, such as fsspec.filesystem('https'); got {type(filesystem).__name__}."
        )
    if not isinstance(path, str):
        raise ArgumentTypeError(f"path must be a string, such as 'bucket/data.zarr'; got {type(path).__name__}.")
    return _recipe(filesystem, filesystem._strip_protocol(path) if path else "")


def _recipe(filesystem: Any, location: str) -> Recipe:
    if isinstance(filesystem, (ThreadedFileSystem, kind(ASYNC_WRAPPER))):
        return _recipe(filesystem.sync_fs, location)
    cls = type(filesystem)
    protocols = (cls.protocol,) if isinstance(cls.protocol, str) else tuple(cls.protocol)
    if location.startswith(tuple(f"{protocol}://" for protocol in protocols)):
        url = location
    else:
        url = f"{protocols[0]}::{location}" if "://" in location else f"{protocols[0]}://{location}"
    options = {name: _twin(cls, name, value) for name, value in _options_of(filesystem).items()}
    return Recipe.with_copies(url, checked_options(options), twin_of=cls, location=location)


def recipe_of_mapper(mapper: object) -> Recipe:
    """The recipe of a twin of a mapping that ``fsspec.get_mapper`` has made."""
    if not isinstance(mapper, FSMap):
        raise ArgumentTypeError(f"fsmap must be what fsspec.get_mapper(url) returns; got {type(mapper).__name__}.")
    return recipe_of_filesystem(mapper.fs, mapper.root)


def recipe_of_upath(upath: Any) -> Recipe:
    """The recipe of the place that a ``upath.UPath`` names. Its own filesystem is not asked for."""
    if not hasattr(upath, "joinpath"):  # some of its versions are no `os.PathLike`
        raise ArgumentTypeError(
            f"upath must be a UPath, such as UPath('gs://bucket/data.zarr', token='anon'); got {type(upath).__name__}."
        )
    return Recipe.checked(str(upath), dict(getattr(upath, "storage_options", {})))


def _options_of(filesystem: Any) -> dict[str, Any]:
    cls = type(filesystem)
    if not hasattr(filesystem, "storage_options"):
        raise ArgumentError(
            f"fs of type {cls.__name__} was not made in the usual way, and holds no options to make another "
            f"from. Give ManagedStore the URL and the storage_options."
        )
    names = [
        name for name, each in inspect.signature(cls.__init__).parameters.items() if each.kind < each.VAR_POSITIONAL
    ]
    options = {**dict(zip(names[1:], filesystem.storage_args, strict=False)), **filesystem.storage_options}
    if len(filesystem.storage_args) > len(names[1:]):
        raise ArgumentError(
            f"fs of type {cls.__name__} was made from positional arguments that have no names. Give "
            f"ManagedStore the URL and the storage_options."
        )
    return {name: value for name, value in options.items() if name not in DECIDED_HERE}


def _twin(cls: type, name: str, value: Any) -> Any:
    if isinstance(value, AbstractFileSystem):
        return _recipe(value, "")
    if isinstance(value, dict):
        return {key: _twin(cls, name, each) for key, each in value.items()}
    if hasattr(value, "read") and hasattr(value, "seek"):
        raise ArgumentError(
            f"fs of type {cls.__name__} was made from an open file, its option {name!r}, which can only be "
            f"read once at a time. Give ManagedStore a URL instead, such as 'zip::https://host/data.zip'."
        )
    return value
