"""fsspec's wrapper that makes a synchronous filesystem asynchronous holds that filesystem and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from managed_store._closers import closer_for
from managed_store._closers._closer import Closer

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["WrapperCloser"]


class WrapperCloser(Closer):
    """Hands every step on to the closer of the wrapped filesystem."""

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        super().__init__(filesystem)
        self._inner = closer_for(self.filesystem.sync_fs)

    async def open(self) -> None:
        await self._inner.open()

    def notice(self) -> None:
        self._inner.notice()

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        self._inner.seal(refuse)

    async def close(self) -> None:
        await self._inner.close()

    def force(self) -> None:
        self._inner.force()

    def still_open(self) -> list[str]:
        return self._inner.still_open()
