"""The threads in which a synchronous filesystem runs."""

from __future__ import annotations

from managed_store._closers._closer import Closer
from managed_store._threads import Workers

__all__ = ["ThreadedCloser"]


class ThreadedCloser(Closer):
    """Ends the threads of a ``ThreadedFileSystem``. The filesystem that they call has a closer of its own."""

    def busy(self) -> bool:
        return any(each.busy for each in self._workers())

    async def close(self) -> None:
        for each in self._workers():
            await each.stopped()

    def force(self) -> None:
        for each in self._workers():
            each.stop()

    def still_open(self) -> list[str]:
        return ["thread in a call to the filesystem" for each in self._workers() if each.alive]

    def _workers(self) -> list[Workers]:
        workers = getattr(self.filesystem, "workers", None)  # missing while the constructor fails
        return [] if workers is None else [workers]
