"""A contract for closers: subclass it in your own test suite, and every promise of `Closer` is put to the test.

Nothing of a test framework is imported. The tests are plain methods that run event loops of their own; pytest collects
them from any subclass whose name begins with ``Test``. Sockets are counted with the package psutil.
"""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from contextlib import suppress
from typing import Any, ClassVar

from managed_store._closers import Closer, closer_for
from managed_store._closers.unknown import UnknownCloser
from managed_store.testing._closer_steps import StepsOfAStore, ask, in_time, on_a_loop, was_refused
from managed_store.testing._observing import call_in_a_thread, connected_sockets, connections_made

__all__ = ["CloserContract"]


class CloserContract(StepsOfAStore):
    """The promises of a closer, as tests.

    Override `make_filesystem` and `use`. The sockets and threads of the process are counted, so that nothing else
    may open or close any at the same time.

    Attributes
    ----------
    closer_class : type, optional
        What the registry must find for the filesystem. The default takes anything but the closer that guesses.
    only_by_awaiting : tuple of str
        What `still_open` may go on naming after `force`, because it can be closed by awaiting alone.
    opens_connections : bool
        Whether `use` opens any. A filesystem that keeps all in memory, say, does not.
    seals : bool
        Whether `seal` keeps the filesystem from connecting. A closer that guesses cannot.

    Examples
    --------
    >>> from managed_store.testing import CloserContract
    >>> class TestArchiveServiceCloser(CloserContract):
    ...     def make_filesystem(self):
    ...         return ArchiveServiceFileSystem(url, asynchronous=True, skip_instance_cache=True)
    ...
    ...     async def use(self, filesystem):
    ...         await filesystem._cat_file("a/key/that/is/there")
    """

    closer_class: ClassVar[type[Closer] | None] = None
    opens_connections: ClassVar[bool] = True
    seals: ClassVar[bool] = True

    @on_a_loop
    async def test_the_closer_is_found(self) -> None:
        """The registry finds the closer by what it was registered for."""
        filesystem, found = self._unused()
        await self._end(filesystem, found)
        if self.closer_class is not None:
            assert isinstance(found, self.closer_class), f"found {found!r}"
        else:
            assert not isinstance(found, UnknownCloser), f"nothing is registered for {type(filesystem).__qualname__}"

    @on_a_loop
    async def test_what_was_used_is_closed(self) -> None:
        """When `close` returns nothing is left, and nothing connects anew. Closing again is harmless."""
        filesystem, closer = await self._used()
        assert not self.opens_connections or self._grown()["sockets"] > 0, "use() has opened no connection"
        await self._end(filesystem, closer)
        self._check_nothing_left(closer)
        await in_time(closer.close())
        if self.seals:
            with connections_made() as made, suppress(Exception):
                await self.use(filesystem)
            assert made == [], "a closed filesystem connects anew"
        self._check_nothing_left(closer)

    @on_a_loop
    async def test_what_is_open_has_a_name(self) -> None:
        """`still_open` names what use has opened, at the latest when that is about to be closed."""
        filesystem, closer = await self._used()
        self._begin_to_close(filesystem, closer)
        names = closer.still_open()
        await in_time(closer.close())
        if self.opens_connections:
            assert names != []
            assert all(isinstance(name, str) and name for name in names), names

    @on_a_loop
    async def test_what_was_never_used_is_closed(self) -> None:
        """Nothing is opened in order to close it."""
        filesystem, closer = self._unused()
        with connections_made() as made:
            await self._end(filesystem, closer)
            closer.force()
        assert made == []
        self._check_nothing_left(closer)

    @on_a_loop
    async def test_opening_before_use(self) -> None:
        """`open` may be awaited several times, also at once."""
        filesystem, closer = self._unused()
        await asyncio.gather(closer.open(), closer.open())
        await closer.open()
        await self.use(filesystem)
        await self._end(filesystem, closer)
        self._check_nothing_left(closer)

    @on_a_loop
    async def test_what_is_sealed_opens_nothing(self) -> None:
        """Sealed before its first use, a filesystem calls `refuse` where it would connect."""
        filesystem, closer = self._unused()
        connected_at_once = self._grown()["sockets"] > 0
        self._begin_to_close(filesystem, closer)
        raised: BaseException | None = None
        with connections_made() as made:
            try:
                await self.use(filesystem)
            except Exception as error:
                raised = error
        await in_time(closer.close())
        if self.seals and self.opens_connections and not connected_at_once:
            assert made == [], "a sealed filesystem connects"
            assert was_refused(raised), f"refuse was not called; use() raised {raised!r}"

    @on_a_loop
    async def test_questions_at_any_time(self) -> None:
        """`notice`, `busy` and `still_open` answer at every stage, and change nothing."""
        filesystem, closer = self._unused()
        with connections_made() as made:
            ask(closer)
        assert made == []
        for _ in range(2):
            await self.use(filesystem)
            ask(closer)
        self._begin_to_close(filesystem, closer)
        ask(closer)
        closer.force()
        ask(closer)
        await in_time(closer.close())
        ask(closer)

    @on_a_loop
    async def test_forcing_on_the_running_loop(self) -> None:
        """`force` never raises, however often, before use and after closing; a few turns later all is shut."""
        for used in (False, True):
            filesystem, closer = await self._used() if used else self._unused()
            self._begin_to_close(filesystem, closer)
            closer.force()
            closer.force()
            await self._settle(closer, forced=True)
            await in_time(closer.close())  # ends what can be closed by awaiting alone
            closer.force()
            await self._settle(closer)

    @on_a_loop
    async def test_forcing_without_a_step_before(self) -> None:
        """Where building a chain fails, its filesystems are forced, and nothing was noticed or sealed before."""
        filesystem, closer = await self._used()
        closer.force()
        try:
            await self._settle(closer, forced=True)
        finally:
            await self._end(filesystem, closer)

    def test_forcing_while_the_loop_is_paused(self) -> None:
        """From another thread, the connections of a loop that does not run are shut at once. It may go on then."""
        self._before = self._held()
        with asyncio.Runner() as runner:
            filesystem, closer = runner.run(self._used())
            call_in_a_thread(lambda: self._cut_off(filesystem, closer))
            sockets = self._grown()["sockets"]
            runner.run(self._settle(closer, forced=True))
            runner.run(in_time(closer.close()))
            runner.run(self._settle(closer))
        assert sockets <= len(self.only_by_awaiting), "open after force(), on a loop that does not run"

    def test_forcing_after_the_loop_was_closed(self) -> None:
        """From another thread, the connections that a closed loop has left open are shut."""
        self._before = self._held()
        loop = asyncio.new_event_loop()
        try:
            filesystem, closer = loop.run_until_complete(self._used())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        call_in_a_thread(lambda: self._cut_off(filesystem, closer))
        asyncio.run(self._settle(closer, forced=True))

    @on_a_loop
    async def test_closing_after_the_other_side_has_gone(self) -> None:
        """Connections that were lost are closed too. `close` may raise then; `force` follows."""
        theirs = connected_sockets()
        filesystem, closer = await self._used()
        for number in connected_sockets() - theirs:
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.05)
        try:
            await self._end(filesystem, closer)
        except TimeoutError:
            raise
        except Exception:
            closer.force()
        await self._settle(closer)

    @on_a_loop
    async def test_a_close_that_is_cancelled(self) -> None:
        """When time is up `close` is cancelled, and `force` follows."""
        filesystem, closer = await self._used()
        self._begin_to_close(filesystem, closer)
        closing = asyncio.ensure_future(closer.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        closer.force()
        await self._settle(closer, forced=True)
        await in_time(closer.close())
        await self._settle(closer)

    @on_a_loop
    async def test_finalizers_are_retired(self) -> None:
        """Nothing that the filesystem's packages registered with `weakref.finalize` runs later, or on another loop."""
        filesystem, closer = await self._used()
        await self._end(filesystem, closer)
        references = [reference for each in self.filesystems(filesystem) for reference in weakref.getweakrefs(each)]
        callbacks = [reference.__callback__ for reference in references]
        assert [each.peek() for each in callbacks if isinstance(each, weakref.finalize) and each.alive] == []

    @on_a_loop
    async def test_a_constructor_that_failed(self) -> None:
        """No step raises for a filesystem that lacks any attribute, because its constructor has raised."""
        made, its_closer = self._unused()
        classes: list[Any] = [type(each) for each in self.filesystems(made)]
        await self._end(made, its_closer)
        for cls in classes:
            quiet: Any = type(cls.__name__, (cls,), {"__del__": lambda self: None})  # whatever the backend's own does
            closer = closer_for(quiet.__new__(quiet))
            closer.force()
            ask(closer)
            closer.force()
            self._check_nothing_named(closer)
