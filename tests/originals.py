"""Filesystems that somebody else has made and goes on using, while stores over the same places come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from managed_store._closers import retire_finalizers
from tests.every_backend import CONTENTS

KEY = "folder/small"


def sessions_of(filesystem: Any) -> list[Any]:
    """What is open in the original, to be compared by identity."""
    names = ("_session", "_s3", "_s3creator", "service_client", "ftp", "zip", "fo", "fs", "dircache", "session")
    return [getattr(filesystem, name, None) for name in names]


def close(filesystem: Any) -> None:
    """What a plain user leaves open is theirs; here it must not outlive the test, and nor must fsspec's cache."""
    cached = [each for cls in subclasses_of(AbstractFileSystem) for each in cls._cache.values()]
    for each in {id(each): each for each in (filesystem, *cached)}.values():
        held = object.__getattribute__(each, "__dict__")
        retire_finalizers(each)
        if held.get("_s3creator") is not None:
            fsspec.asyn.sync(each.loop, each._s3creator.__aexit__, None, None, None)
        if "service_client" in held:
            fsspec.asyn.sync(each.loop, each.service_client.close)
        if "_mrd_pool_cache" in held:
            fsspec.asyn.sync(each.loop, each._close_resources)
        if hasattr(held.get("_session"), "close"):
            fsspec.asyn.sync(each.loop, each._session.close)
        for name in ("ftp", "zip"):
            if name in held:
                held[name].close()
        type(each).clear_instance_cache()


def subclasses_of(cls: Any) -> Iterator[Any]:
    """All classes below a class, and itself."""
    yield cls
    for each in cls.__subclasses__():
        yield from subclasses_of(each)


class Original:
    """A filesystem in use by somebody else, found in fsspec's cache where its class is cached."""

    def __init__(self, place: Any) -> None:
        self.url, self.options = place.url, place.options
        self.filesystem, self.path = fsspec.url_to_fs(place.url, **place.options)
        assert self.read() == CONTENTS[KEY]
        self.held = sessions_of(self.filesystem)
        self.mode = self.mode_now()
        self.cached = self.is_cached()

    def read(self) -> bytes:
        return bytes(self.filesystem.cat_file(f"{self.path}/{KEY}".lstrip("/" if self.path == "" else "")))

    def is_cached(self) -> bool:
        return any(each is self.filesystem for each in type(self.filesystem)._cache.values())

    def mode_now(self) -> tuple[Any, ...]:
        """Whether it is awaited, and which attributes it has: what is sealed has an attribute more."""
        attributes = set(object.__getattribute__(self.filesystem, "__dict__")) - {"__annotations__", "_latest"}
        return getattr(self.filesystem, "asynchronous", None), self.filesystem.cachable, attributes

    def check_untouched(self) -> None:
        """It is what it was, holds what it held, and works."""
        assert all(now is then for now, then in zip(sessions_of(self.filesystem), self.held, strict=True))
        assert self.mode_now() == self.mode
        assert self.is_cached() == self.cached
        for session in self.held[:1]:
            assert session is None or not session.closed
        assert self.read() == CONTENTS[KEY]
