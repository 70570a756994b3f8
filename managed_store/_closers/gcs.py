"""gcsfs holds an aiohttp session; its extended filesystem also gRPC channels, pooled downloaders and threads."""

from __future__ import annotations

from typing import ClassVar

from managed_store._closers._aiohttp import AiohttpCloser

__all__ = ["ExtendedGcsCloser", "GcsCloser"]


class GcsCloser(AiohttpCloser):
    """Closes the session of ``gcsfs.core.GCSFileSystem``."""

    openers: ClassVar[tuple[str, ...]] = ("_set_session",)


class ExtendedGcsCloser(GcsCloser):
    """Also closes what ``gcsfs.ExtendedGcsFileSystem`` adds.

    That is a storage-control channel, and a gRPC client with the downloaders pooled on it (closed by the
    filesystem's own ``_close_resources``), and the threads of an executor.
    """

    openers: ClassVar[tuple[str, ...]] = ("_set_session", "_get_grpc_client", "_get_control_plane_client")

    async def close(self) -> None:
        try:
            await self.filesystem._close_resources()
        finally:
            await super().close()
        # Its threads only copy memory, so waiting for them is a matter of microseconds.
        self.filesystem._memmove_executor.shutdown(wait=True, cancel_futures=True)

    def force(self) -> None:
        super().force()
        executor = getattr(self.filesystem, "_memmove_executor", None)  # missing while the constructor fails
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def still_open(self) -> list[str]:
        channels = {
            "gRPC client": self.filesystem._grpc_client,
            "storage-control channel": self.filesystem._storage_control_client,
        }
        return [*super().still_open(), *(name for name, channel in channels.items() if channel is not None)]
