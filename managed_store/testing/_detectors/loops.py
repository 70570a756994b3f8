"""Event loops that were made and neither closed nor left running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._origins import loop_state
from managed_store.testing._patches import Patches

__all__ = ["LoopDetector"]


class LoopDetector(Detector):
    """Every loop that is paused. One that runs, does so on a thread: zarr's and fsspec's, on daemons of their own."""

    def install(self, patches: Patches) -> None:
        patches.notice(asyncio.BaseEventLoop, "__init__", self.opened.note)
        patches.when_imported("uvloop", lambda module: patches.notice(module.Loop, "__init__", self.opened.note))

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, loop in self.opened.since(mark.number):
            if loop_state(loop) == "paused":
                yield record.leak("event loop"), loop
