"""Buckets and objects in memory, with the metadata and the listing rules of Google's JSON API."""

from __future__ import annotations

import base64
import hashlib
import itertools
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

_generations = itertools.count(1)
# What a client may set besides the content: every other field is the server's own.
_WRITABLE_FIELDS = frozenset(
    {
        "contentType",
        "metadata",
        "cacheControl",
        "contentDisposition",
        "contentEncoding",
        "contentLanguage",
        "customTime",
    }
)
# After every name that begins with a given prefix.
_LAST_CHARACTER = "\U0010ffff"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object."""

    bucket: str
    name: str
    data: bytes
    fields: Mapping[str, Any]
    finalized: bool = True
    """Whether nothing can be appended any more."""
    metageneration: int = 1
    generation: int = field(default_factory=lambda: next(_generations))
    created: str = field(default_factory=_now)
    updated: str = field(default_factory=_now)

    @cached_property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data, usedforsecurity=False).digest()).decode()

    def resource(self) -> dict[str, Any]:
        """The object as the API describes it: numbers are strings there."""
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "bucket": self.bucket,
            "name": self.name,
            "size": str(len(self.data)),
            "md5Hash": self.md5,
            "etag": f"{self.generation}/{self.metageneration}",
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "timeCreated": self.created,
            "updated": self.updated,
            "contentType": "application/octet-stream",
            **({"timeFinalized": self.updated} if self.finalized else {}),
            **self.fields,
        }


@dataclass(frozen=True)
class Page:
    """One page of a listing; `next_start` is the name at which the following one begins."""

    objects: list[StoredObject]
    prefixes: list[str]
    next_start: str | None


class Bucket:
    """Objects by name, and their names in order.

    The `settings` are what it was created with: they say whether its objects lie in one zone, and whether it
    has folders.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.zonal = "customPlacementConfig" in settings
        self.hierarchical: bool = settings.get("hierarchicalNamespace", {}).get("enabled", False)
        self.created = _now()
        self._objects: dict[str, StoredObject] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, name: str) -> StoredObject | None:
        return self._objects.get(name)

    def put(self, name: str, data: bytes, fields: Mapping[str, Any], *, finalized: bool = True) -> StoredObject:
        """Write a new generation of the object."""
        stored = StoredObject(self.name, name, data, _writable(fields), finalized)
        if name not in self._objects:
            insort(self._names, name)
        self._objects[name] = stored
        return stored

    def change_fields(self, stored: StoredObject, changes: Mapping[str, Any]) -> StoredObject:
        """Merge changes into the object's fields, where None means to delete one; the content stays."""
        changed = StoredObject(
            bucket=stored.bucket,
            name=stored.name,
            data=stored.data,
            fields=_merge(stored.fields, _writable(changes)),
            finalized=stored.finalized,
            metageneration=stored.metageneration + 1,
            generation=stored.generation,
            created=stored.created,
        )
        self._objects[stored.name] = changed
        return changed

    def change_content(self, stored: StoredObject, data: bytes, *, finalized: bool) -> StoredObject:
        """Put what was appended into the object, unless another generation has taken its place."""
        changed = replace(stored, data=data, finalized=finalized, updated=_now())
        current = self._objects.get(stored.name)
        if current is not None and current.generation == stored.generation:
            self._objects[stored.name] = changed
        return changed

    def delete(self, name: str) -> None:
        del self._objects[name]
        del self._names[bisect_left(self._names, name)]

    def page(self, *, prefix: str, delimiter: str, start: str, end: str, limit: int) -> Page:
        """List names in order from `start` up to but without `end`; "" stands for no such bound.

        A name that has the delimiter after the prefix is not listed itself: all that are alike up to there
        count as one prefix.
        """
        objects: list[StoredObject] = []
        prefixes: list[str] = []
        position = bisect_left(self._names, max(prefix, start))
        while position < len(self._names):
            name = self._names[position]
            if not name.startswith(prefix) or (end and name >= end):
                break
            if len(objects) + len(prefixes) == limit:
                return Page(objects, prefixes, next_start=name)
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                objects.append(self._objects[name])
                position += 1
            else:
                group = name[: cut + len(delimiter)]
                prefixes.append(group)
                position = bisect_left(self._names, group + _LAST_CHARACTER, position)
        return Page(objects, prefixes, next_start=None)

    def folders(self) -> list[str]:
        """The folders that objects lie in, each with a slash at the end; there are no empty ones."""
        cuts = ((name, cut) for name in self._names for cut, letter in enumerate(name, start=1) if letter == "/")
        return sorted({name[:cut] for name, cut in cuts})

    @property
    def location_type(self) -> str:
        return "zone" if self.zonal else "multi-region"

    def resource(self) -> dict[str, Any]:
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "name": self.name,
            "location": "US",
            "locationType": self.location_type,
            "storageClass": "STANDARD",
            "timeCreated": self.created,
            "updated": self.created,
            "etag": "1",
            "metageneration": "1",
        }


def _writable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in _WRITABLE_FIELDS}


def _merge(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merge(merged.get(name, {}), value)
        else:
            merged[name] = value
    return merged
