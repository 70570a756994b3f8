"""aiobotocore's clients, as s3fs has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._patches import Patches

__all__ = ["ClientDetector"]


class ClientDetector(Detector):
    """Every client that was entered and neither left nor closed. A client has no attribute that says so."""

    def install(self, patches: Patches) -> None:
        def patch(module: ModuleType) -> None:
            patches.replace(module.AioBaseClient, "__aenter__", lambda original: self._calling(original, closed=False))
            for name in ("__aexit__", "close"):
                patches.replace(module.AioBaseClient, name, lambda original: self._calling(original, closed=True))

        patches.when_imported("aiobotocore.client", patch)

    def leaks(self, mark: Mark) -> Iterator[Found]:
        for record, client in self.opened.since(mark.number):
            if not record.closed and not _was_cut_off(client, of_a_closed_loop=record.loop_state == "closed"):
                yield record.leak("client"), client

    def _calling(self, original: Callable[..., Any], *, closed: bool) -> Callable[..., Any]:
        # `async with` looks its exit up when it is entered, so that looking it up says nothing.
        @functools.wraps(original)
        def call(client: Any, *args: Any) -> Any:
            record = self.opened.get(client) if closed else self.opened.note(client)
            if record is not None:
                record.closed = closed
            return original(client, *args)

        return call


def _was_cut_off(client: Any, *, of_a_closed_loop: bool) -> bool:
    """Whether it had sessions, and all were closed from below; or had none, and can have none any more."""
    sessions: Any = getattr(getattr(getattr(client, "_endpoint", None), "http_session", None), "_sessions", None) or {}
    return (bool(sessions) or of_a_closed_loop) and all(session.closed for session in sessions.values())
