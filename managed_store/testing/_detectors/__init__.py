"""What can be left open, one kind or family a file: how it is noticed when it is opened, and how seen to be open."""

from __future__ import annotations

from managed_store.testing._detectors._detector import Detector, Found, Mark
from managed_store.testing._detectors.aiobotocore import ClientDetector
from managed_store.testing._detectors.aiohttp import ConnectorDetector, SessionDetector
from managed_store.testing._detectors.filesystems import FilesystemDetector
from managed_store.testing._detectors.grpc import ChannelDetector
from managed_store.testing._detectors.loops import LoopDetector
from managed_store.testing._detectors.sockets import SocketDetector
from managed_store.testing._detectors.tasks import TaskDetector
from managed_store.testing._detectors.threads import ThreadDetector

__all__ = ["DETECTORS", "Detector", "Found", "Mark", "SocketDetector"]

DETECTORS: tuple[type[Detector], ...] = (
    FilesystemDetector,
    ClientDetector,
    SessionDetector,
    ConnectorDetector,
    ChannelDetector,
    LoopDetector,
    SocketDetector,
    ThreadDetector,
    TaskDetector,
)
