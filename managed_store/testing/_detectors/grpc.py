"""gRPC's asynchronous channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from managed_store._closers._grpc import is_open
from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._patches import Patches

__all__ = ["ChannelDetector"]


class ChannelDetector(Detector):
    """Every ``grpc.aio.Channel``, also one that its finalizer closes: when that is, is chance."""

    with_finalizers = True

    def install(self, patches: Patches) -> None:
        def patch(module: ModuleType) -> None:
            patches.notice(module.Channel, "__init__", self.opened.note)
            patches.replace(module.Channel, "__del__", self._looking_first)

        patches.when_imported("grpc.aio._channel", patch)

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, channel in self.opened.since(mark.number):
            if is_open(channel):
                yield record.leak("channel"), channel
        for record in self.opened.lost_since(mark.number):
            yield record.leak("channel", collected=True), None

    def _looking_first(self, original: Any) -> Callable[[Any], None]:
        def __del__(channel: Any) -> None:  # noqa: N807
            if is_open(channel):
                self.opened.lose(channel)
            if original is not None:
                original(channel)

        return __del__
