"""aiohttp's client sessions and connectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._patches import Patches
from managed_store.testing._report import Kind

__all__ = ["ConnectorDetector", "SessionDetector"]


class _WithClosed(Detector):
    """What has an attribute `closed` and a finalizer that warns."""

    with_finalizers = True
    kind: ClassVar[Kind]
    module: ClassVar[str]
    name: ClassVar[str]

    def install(self, patches: Patches) -> None:
        def patch(module: ModuleType) -> None:
            cls = getattr(module, self.name)
            patches.notice(cls, "__init__", self.opened.note)
            patches.replace(cls, "__del__", self._looking_first)

        patches.when_imported(self.module, patch)

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, thing in self.opened.since(mark.number):
            if _is_open(thing):
                yield record.leak(self.kind), thing
        for record in self.opened.lost_since(mark.number):
            yield record.leak(self.kind, collected=True), None

    def _looking_first(self, original: Any) -> Callable[[Any], None]:
        def __del__(thing: Any) -> None:  # noqa: N807
            if _is_open(thing):
                self.opened.lose(thing)
            if original is not None:
                original(thing)

        return __del__


class SessionDetector(_WithClosed):
    """Every ``aiohttp.ClientSession``."""

    kind = "session"
    module = "aiohttp.client"
    name = "ClientSession"


class ConnectorDetector(_WithClosed):
    """Every connector of aiohttp."""

    kind = "connector"
    module = "aiohttp.connector"
    name = "BaseConnector"


def _is_open(thing: Any) -> bool:
    try:
        return not thing.closed
    except AttributeError:  # its constructor has failed, or has not come so far
        return False
