"""The threads in which a synchronous filesystem runs."""

from __future__ import annotations

from managed_store._closers._closer import Closer

__all__ = ["ThreadedCloser"]


class ThreadedCloser(Closer):
    """Ends the threads of a ``ThreadedFileSystem``. The filesystem that they call has a closer of its own."""

    def busy(self) -> bool:
        busy: bool = self.filesystem.workers.busy
        return busy

    async def close(self) -> None:
        await self.filesystem.workers.stopped()

    def force(self) -> None:
        self.filesystem.workers.stop()

    def still_open(self) -> list[str]:
        return ["thread in a call to the filesystem"] if self.filesystem.workers.alive else []
