"""What a closer is: how one kind of filesystem lets go of what it holds open."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["Closer", "retire_finalizers", "retire_own_finalizers"]


class Closer:
    """How one filesystem lets go: gracefully, by force, and what is left open after that.

    The base class is the closer of a filesystem that holds nothing, such as the local one. One closer serves one
    filesystem; it is made with it, and may remember between its steps what it has seen.

    Every method runs on the event loop that owns the filesystem. When that is closed or paused, `notice`, `seal`,
    `force` and `still_open` run on the thread that closes the store. `building` runs on whatever thread builds, and
    `close_copies` on the one that forked. A closer closes what exists: it never opens a session in order to close it.

    Parameters
    ----------
    filesystem : fsspec.spec.AbstractFileSystem
        The filesystem to close; private to one store and one loop.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        # Typed loosely, once: fsspec and its backends have no types, and closers read their attributes by name.
        self.filesystem: Any = filesystem

    @classmethod
    def building(cls, options: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Return what is held while a filesystem is built; a lock, where that disturbs another.

        Parameters
        ----------
        options : mapping
            What the filesystem is built with.

        Returns
        -------
        context manager
            The default does nothing.
        """
        return nullcontext()

    async def open(self) -> None:
        """Open what every request needs, before the first of them. Concurrent first requests would each open one."""

    def notice(self) -> None:
        """Remember what is open now. Called before requests are cut off: the backend forgets what that closes."""

    def seal(self, refuse: Callable[..., NoReturn]) -> None:
        """Keep the filesystem from opening anything from now on.

        Parameters
        ----------
        refuse : callable
            What the filesystem is to call instead, with any arguments. It raises ``StoreClosedError``.
        """

    def busy(self) -> bool:
        """Whether a call is under way that can only be interrupted from below, by cutting off what it waits for."""
        return False

    async def close(self) -> None:
        """Close gracefully. May raise, and may be cancelled when time is up; `force` follows then."""

    def force(self) -> None:
        """Cut off what is still open, without awaiting. Must not raise."""

    def still_open(self) -> list[str]:
        """Name what is still open, for a message to the user; empty if nothing is."""
        return []

    def close_copies(self) -> None:
        """In a forked child: close its copies of the sockets, without a word to the server. Must not wait, or lock.

        The connections are the parent's, and the server sees it close them only when nobody has a copy.
        """


def retire_finalizers(filesystem: AbstractFileSystem, *, packages: frozenset[str] | None = None) -> None:
    """Detach the `weakref.finalize` callbacks that the backend registered for `filesystem`.

    They would close a second time, on the wrong loop or at interpreter exit; some hold the filesystem for ever (adlfs
    passes it to its own finalizer). The references and their callbacks are public API.

    Parameters
    ----------
    filesystem : fsspec.spec.AbstractFileSystem
        The filesystem.
    packages : frozenset of str, optional
        Detach only callbacks from these top-level packages. The default detaches all: right when the filesystem
        has just been built, so that nobody else can have registered one.
    """
    for reference in weakref.getweakrefs(filesystem):
        finalizer = getattr(reference, "__callback__", None)
        if not isinstance(finalizer, weakref.finalize):
            continue
        alive = finalizer.peek()
        if alive is None:
            continue
        function: Any = alive[1]
        if packages is None or str(getattr(function, "__module__", "")).partition(".")[0] in packages:
            finalizer.detach()


def retire_own_finalizers(filesystem: AbstractFileSystem) -> None:
    """Detach the callbacks that come from the packages of the filesystem's class and its bases."""
    if weakref.getweakrefs(filesystem):
        packages = {cls.__module__.partition(".")[0] for cls in type(filesystem).__mro__}
        retire_finalizers(filesystem, packages=frozenset(packages - {"builtins"}))
