"""A contract for closers: subclass it in your own test suite, and every promise of `Closer` is put to the test.

Nothing of a test framework is imported. The tests are plain methods that run event loops of their own, and pytest
collects them from any subclass whose name begins with ``Test``. Counting sockets needs the package psutil.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from managed_store._closers import Closer, closer_for, retire_finalizers
from managed_store._closers.unknown import UnknownCloser
from managed_store.errors import MissingPackageError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["CloserContract", "OpenedAfterSealingError"]

T = TypeVar("T")

# Seconds that a step may take before the closer counts as one that hangs.
_PATIENCE = 10.0

# Seconds for a loop to close the sockets that were cut off: a few of its turns.
_TURNS = 1.0


class OpenedAfterSealingError(RuntimeError):
    """What `seal` is given raises this: the filesystem tried to open something after it was sealed."""


class CloserContract:
    """The promises of a closer, as tests.

    Override `make_filesystem` and `use`; set `closer_class` to see that your registration is found. Only one such
    test may run at a time in a process, because its sockets and threads are counted.

    Attributes
    ----------
    closer_class : type, optional
        What `closer_for` must find for the filesystem. Without it, anything but the default that guesses.
    only_by_awaiting : tuple of str
        What `still_open` may go on naming after `force`, because it can be closed by awaiting alone.
    opens_connections : bool
        Whether `use` opens any. A filesystem that holds nothing, or keeps all in memory, says False.
    seals : bool
        Whether `seal` can keep the filesystem from opening anything. A closer that guesses cannot.

    Examples
    --------
    >>> import pytest
    >>> from managed_store.testing import CloserContract
    >>> class TestArchiveServiceCloser(CloserContract):
    ...     closer_class = ArchiveServiceCloser  # doctest: +SKIP
    ...
    ...     @pytest.fixture(autouse=True)
    ...     def _server(self, archive_service):
    ...         self.url = archive_service.url
    ...
    ...     def make_filesystem(self):
    ...         return ArchiveServiceFileSystem(self.url, asynchronous=True, skip_instance_cache=True)
    ...
    ...     async def use(self, filesystem):
    ...         await filesystem._cat_file("a/key/that/is/there")
    """

    closer_class: ClassVar[type[Closer] | None] = None
    only_by_awaiting: ClassVar[tuple[str, ...]] = ()
    opens_connections: ClassVar[bool] = True
    seals: ClassVar[bool] = True

    # What a subclass says

    def make_filesystem(self) -> AbstractFileSystem:
        """Make a private filesystem: with ``skip_instance_cache=True``, and ``asynchronous=True`` if it can be."""
        raise NotImplementedError("override make_filesystem: it returns a new, private filesystem")

    async def use(self, filesystem: AbstractFileSystem) -> None:
        """Make a real request, so that the filesystem opens what it needs; call what blocks in a thread."""
        raise NotImplementedError("override use: it makes a request to a server")

    def make_closer(self, filesystem: AbstractFileSystem) -> Closer:
        """Make the closer of a filesystem that was made here. The default asks the registry, as a store does."""
        return closer_for(filesystem)

    def filesystems(self, filesystem: AbstractFileSystem) -> list[AbstractFileSystem]:
        """List all filesystems that the closer serves: this one, and those that were made for it."""
        return [filesystem]

    def open_sockets(self) -> int:
        """Count the TCP sockets of this process that are connected, or have been.

        Raises
        ------
        MissingPackageError
            The package psutil is not installed.
        """
        return len(_tcp_sockets())

    # The promises

    def test_the_closer_is_found(self) -> None:
        """`closer_for` finds the closer of the filesystem's class, by whatever it was registered for."""

        async def life() -> None:
            filesystem = self.make_filesystem()
            found = closer_for(filesystem)
            if self.closer_class is None:
                assert not isinstance(found, UnknownCloser), f"no closer is registered for {type(filesystem)!r}"
            else:
                assert isinstance(found, self.closer_class), f"found {found!r}"
            await self._end(filesystem, found)

        self._run(life)

    def test_what_was_used_is_closed_gracefully(self) -> None:
        """Use opens something, which has a name; when `close` returns nothing is left of it, and nothing has a name."""

        async def life() -> None:
            filesystem, closer = await self._used()
            if self.opens_connections:
                assert _grown(before, self._held())["sockets"] > 0, "use() opened no connection"
                _check_names(closer.still_open())
            self._begin_to_close(filesystem, closer)
            if self.opens_connections:
                _check_names(closer.still_open())
            await _in_time(closer.close())
            assert closer.still_open() == []
            assert _grown(before, self._held()) == _NOTHING
            for _ in range(2):
                await _in_time(closer.close())
            assert closer.still_open() == []
            await self._check_closed(filesystem)

        before = self._held()
        self._run(life)

    def test_closing_what_was_never_used(self) -> None:
        """What was never used is closed without connecting to anything."""

        async def life() -> None:
            filesystem = self.make_filesystem()
            closer = self.make_closer(filesystem)
            with _connections() as made:
                closer.notice()
                self._begin_to_close(filesystem, closer)
                await _in_time(closer.close())
                closer.force()
            assert made == []
            assert closer.still_open() == []
            assert _grown(before, self._held()) == _NOTHING

        before = self._held()
        self._run(life)

    def test_opening_before_use(self) -> None:
        """`open` may be awaited several times, also at once; use goes on from there, and closing ends it all."""

        async def life() -> None:
            filesystem = self.make_filesystem()
            closer = self.make_closer(filesystem)
            await asyncio.gather(closer.open(), closer.open())
            await closer.open()
            await self.use(filesystem)
            await self._end(filesystem, closer)
            assert _grown(before, self._held()) == _NOTHING

        before = self._held()
        self._run(life)

    def test_nothing_is_opened_once_it_is_sealed(self) -> None:
        """A filesystem that was sealed before its first use calls `refuse` where it would open a connection."""
        if not self.seals:
            return

        async def life() -> None:
            filesystem = self.make_filesystem()
            closer = self.make_closer(filesystem)
            connected = _grown(before, self._held())["sockets"]
            self._begin_to_close(filesystem, closer)
            refused = False
            with _connections() as made:
                try:
                    await self.use(filesystem)
                except Exception as error:
                    refused = _is_refusal(error)
            assert made == [], "a sealed filesystem opened a connection"
            if self.opens_connections and not connected:
                assert refused, "use() of a sealed filesystem did not call refuse"
            await self._end(filesystem, closer)

        before = self._held()
        self._run(life)

    def test_noticing_at_any_time(self) -> None:
        """`notice`, `busy` and `still_open` answer at every stage, and change nothing."""

        async def life() -> None:
            filesystem = self.make_filesystem()
            closer = self.make_closer(filesystem)
            with _connections() as made:
                _ask(closer)
            assert made == []
            await self.use(filesystem)
            _ask(closer)
            _ask(closer)
            await self.use(filesystem)
            self._begin_to_close(filesystem, closer)
            _ask(closer)
            await _in_time(closer.close())
            _ask(closer)
            closer.force()
            _ask(closer)
            assert closer.still_open() == []

        self._run(life)

    def test_forcing_on_the_running_loop(self) -> None:
        """`force` never raises, also before anything was opened, and twice; a few turns of the loop later all is shut.

        `close` after it ends what can be closed by awaiting alone.
        """

        async def life() -> None:
            unused = self.make_filesystem()
            closer = self.make_closer(unused)
            closer.force()
            self._begin_to_close(unused, closer)
            closer.force()
            filesystem, closer = await self._used()
            self._begin_to_close(filesystem, closer)
            closer.force()
            closer.force()
            await self._settle(lambda: set(closer.still_open()) <= set(self.only_by_awaiting))
            await _in_time(closer.close())
            closer.force()
            await self._settle(lambda: closer.still_open() == [] and _grown(before, self._held()) == _NOTHING)
            await self._check_closed(filesystem)

        before = self._held()
        self._run(life)

    def test_forcing_without_a_word_before(self) -> None:
        """`force` alone cuts off what is open: where building fails, nothing was noticed or sealed before it."""

        async def life() -> None:
            _, closer = await self._used()
            closer.force()
            await self._settle(lambda: set(closer.still_open()) <= set(self.only_by_awaiting))
            await _in_time(closer.close())
            await self._settle(lambda: _grown(before, self._held()) == _NOTHING)

        before = self._held()
        self._run(life)

    def test_forcing_on_another_thread_while_the_loop_is_paused(self) -> None:
        """The sockets of a loop that does not run are shut at once, and the loop may go on."""
        before = self._held()
        with asyncio.Runner() as runner:
            filesystem, closer = runner.run(self._used())
            _in_a_thread(lambda: self._cut_off(filesystem, closer))
            left = set(closer.still_open()) - set(self.only_by_awaiting)
            runner.run(self._settle(lambda: set(closer.still_open()) <= set(self.only_by_awaiting)))
            runner.run(_in_time(closer.close()))
            runner.run(self._settle(lambda: _grown(before, self._held()) == _NOTHING))
        assert closer.still_open() == []
        assert left == set(), "open after force(), on a loop that does not run"

    def test_forcing_on_another_thread_after_the_loop_was_closed(self) -> None:
        """The sockets of a loop that was closed with connections open are shut; nothing is awaited, or complains."""
        before = self._held()
        loop = asyncio.new_event_loop()
        try:
            filesystem, closer = loop.run_until_complete(self._used())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        _in_a_thread(lambda: self._cut_off(filesystem, closer))
        assert set(closer.still_open()) <= set(self.only_by_awaiting)
        asyncio.run(self._settle(lambda: _grown(before, self._held())["sockets"] == 0))

    def test_closing_after_the_connections_were_lost(self) -> None:
        """Connections that the other side has ended are closed as well; `close` may raise then, and does not hang."""

        async def life() -> None:
            theirs = {number for number, _ in _tcp_sockets()}
            filesystem, closer = await self._used()
            for number, open_one in _tcp_sockets():
                if number not in theirs:
                    _shut_down(open_one)
            await asyncio.sleep(0.05)
            self._begin_to_close(filesystem, closer)
            try:
                await _in_time(closer.close())
            except TimeoutError:
                raise
            except Exception:
                closer.force()
            await self._settle(lambda: closer.still_open() == [] and _grown(before, self._held()) == _NOTHING)

        before = self._held()
        self._run(life)

    def test_a_cancelled_close_is_followed_by_force(self) -> None:
        """`close` may be cancelled when time is up: `force` then ends what is left, and nothing stays behind."""

        async def life() -> None:
            filesystem, closer = await self._used()
            self._begin_to_close(filesystem, closer)
            closing = asyncio.ensure_future(closer.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            closer.force()
            await self._settle(lambda: set(closer.still_open()) <= set(self.only_by_awaiting))
            await _in_time(closer.close())
            await self._settle(lambda: closer.still_open() == [] and _grown(before, self._held()) == _NOTHING)

        before = self._held()
        self._run(life)

    def test_finalizers_are_retired(self) -> None:
        """What the filesystem's own packages registered to run when it is collected, or at exit, is detached."""

        async def life() -> None:
            filesystem, closer = await self._used()
            await self._end(filesystem, closer)
            for each in self.filesystems(filesystem):
                left = [callback.peek() for callback in _finalizers(each)]
                assert left == [], f"finalizers of {type(each).__name__} are left: {left}"

        self._run(life)

    def test_a_constructor_that_failed(self) -> None:
        """The closer of a filesystem whose constructor raised, so that any attribute may be missing, never raises."""

        async def life() -> None:
            made = self.make_filesystem()
            classes = [type(each) for each in self.filesystems(made)]
            await self._end(made, self.make_closer(made))
            for cls in classes:
                half_made: Any = cls.__new__(cls)
                closer = closer_for(half_made)
                with _connections() as connected:
                    closer.force()
                    _ask(closer)
                    closer.seal(_refuse)
                    closer.force()
                    _ask(closer)
                    await _in_time(closer.close())
                assert closer.still_open() == []
                assert connected == []

        self._run(life)

    # How they are put to the test

    def _run(self, life: Callable[[], Any]) -> None:
        asyncio.run(life())

    async def _used(self) -> tuple[AbstractFileSystem, Closer]:
        filesystem = self.make_filesystem()
        closer = self.make_closer(filesystem)
        await closer.open()
        await self.use(filesystem)
        return filesystem, closer

    def _begin_to_close(self, filesystem: AbstractFileSystem, closer: Closer) -> None:
        """Do what a store does before it closes or forces."""
        closer.notice()
        for each in self.filesystems(filesystem):
            packages = {cls.__module__.partition(".")[0] for cls in type(each).__mro__}
            retire_finalizers(each, packages=frozenset(packages - {"builtins"}))
        closer.seal(_refuse)

    def _cut_off(self, filesystem: AbstractFileSystem, closer: Closer) -> None:
        self._begin_to_close(filesystem, closer)
        closer.force()
        closer.force()

    async def _end(self, filesystem: AbstractFileSystem, closer: Closer) -> None:
        self._begin_to_close(filesystem, closer)
        await _in_time(closer.close())

    async def _check_closed(self, filesystem: AbstractFileSystem) -> None:
        """A closed filesystem opens nothing: its requests raise."""
        if not (self.seals and self.opens_connections):
            return
        with _connections() as made:
            try:
                await self.use(filesystem)
            except Exception:  # of the backend's own, or the refusal
                pass
            else:
                raise AssertionError("a closed filesystem answered a request")
        assert made == [], "a closed filesystem opened a connection"

    async def _settle(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TURNS
        while not done() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        assert done(), f"still open {_TURNS} second(s) later"

    def _held(self) -> dict[str, Any]:
        threads = {thread for thread in threading.enumerate() if not thread.name.startswith(_THREADS_OF_OTHERS)}
        return {"sockets": self.open_sockets(), "threads": threads}


_NOTHING = {"sockets": 0, "threads": set()}

# The default executors of event loops, and fsspec's own loop.
_THREADS_OF_OTHERS = ("asyncio_", "fsspecIO", "zarr_")
