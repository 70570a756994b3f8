"""gcsfs holds an aiohttp session; its extended filesystem also gRPC channels, pooled downloaders and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from managed_store._closers._aiohttp import AiohttpCloser
from managed_store._closers._grpc import HeldChannel, was_lost_in_a_fork
from managed_store.errors import StoreOpenError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

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

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._channels: dict[str, HeldChannel] = {}
        for name in self.openers[1:]:  # so that all calls of a channel are known
            self._notice_what_is_opened_by(filesystem, name, once=False)

    async def open(self) -> None:
        if was_lost_in_a_fork():
            raise StoreOpenError(
                "gcsfs needs gRPC for this store, which does not survive a fork, and the parent of this process has "
                "used it. Start processes with 'spawn' or 'forkserver' (see multiprocessing.set_start_method), or set "
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false before gcsfs is imported, where no bucket is zonal or "
                "hierarchical."
            )
        await super().open()

    def notice(self) -> None:
        super().notice()
        # Any of them is missing while the constructor fails.
        data, control = (getattr(self.filesystem, name, None) for name in ("_grpc_client", "_storage_control_client"))
        if data is not None:
            self._notice_channel("gRPC client", data.grpc_client.transport.grpc_channel)
        if control is not None:
            self._notice_channel("storage-control channel", control.transport.grpc_channel)

    def _notice_channel(self, name: str, channel: Any) -> None:
        if name not in self._channels or self._channels[name].channel is not channel:
            self._channels[name] = HeldChannel(channel)

    async def close(self) -> None:
        self.notice()
        try:
            await self.filesystem._close_resources()
        finally:
            await super().close()
            for channel in self._channels.values():
                channel.let_calls_go()
        # Its threads only copy memory, so waiting for them is a matter of microseconds.
        self.filesystem._memmove_executor.shutdown(wait=True, cancel_futures=True)

    def force(self) -> None:
        super().force()
        self.notice()
        for channel in self._channels.values():
            channel.force()
        pool = getattr(self.filesystem, "_mrd_pool_cache", None)
        if pool is not None:
            pool._closed = True
            pool._mrd_queues.clear()  # a cancelled call keeps its connection until nothing refers to it
        executor = getattr(self.filesystem, "_memmove_executor", None)
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def still_open(self) -> list[str]:
        return [*super().still_open(), *(name for name, channel in self._channels.items() if channel.still_open())]
