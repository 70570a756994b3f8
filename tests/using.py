"""Uses of a real server from within the test's own process, and what is left open afterwards, here and there."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from tests.footprint import NOTHING, Footprint
from tests.servers import GCSServer, RunningServer

__all__ = ["leaves_nothing"]


def leaves_nothing(use: Callable[[], Any], server: RunningServer) -> Any:
    """Make use of a server, twice; the second time leaves nothing, here or there. Returns what `use` does.

    The first starts the threads that belong to others.
    """
    use()
    assert server.wait_for_connections(0) == 0
    before, requests = Footprint.before(), server.requests()
    gc.disable()  # nothing may depend on a collection
    try:
        result = use()
        if isinstance(server, GCSServer):  # gRPC closes on threads of its own, a moment later
            _wait_for_grpc(before)
        else:
            assert before.grown_by(Footprint.now()) == NOTHING
    finally:
        gc.enable()
    assert server.requests() > requests  # it was really used
    assert server.wait_for_connections(0) == 0
    return result


def _wait_for_grpc(before: Footprint) -> None:
    """Wait until everything is closed but the poller of gRPC, which comes and goes for the whole process."""
    deadline = time.monotonic() + 2
    while (grown := {**before.grown_by(Footprint.now()), "descriptors": 0}) != NOTHING and time.monotonic() < deadline:
        time.sleep(0.01)
    assert grown == NOTHING
