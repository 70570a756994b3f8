"""Whatever is done to stores, handles and loops, in any order: exactly that is open which a model says.

The model knows for each store on which loops it has a session, what each of these came to, and how many connections the
operating system must show.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError
from tests.driven_loops import DrivenLoop, PausedLoop, ThreadLoop, ZarrLoop
from tests.footprint import NOTHING, Footprint
from tests.servers import FolderServer, http_server

EXAMPLES = 200 if os.environ.get("MANAGED_STORE_TEST_ALL") == "1" else 30
STEPS = 50

PROTOTYPE = default_buffer_prototype()
KEYS = ("a", "b/c")


@dataclass
class Owner:
    """What must be true of a store and of all its handles.

    `sessions` has for each loop whether the loop can still be asked to close it; `connected` the loops whose session
    has one connection for certain, because it has just read a whole answer. A session has at most one.
    """

    handles: set[int] = field(default_factory=set)
    sessions: dict[DrivenLoop, bool] = field(default_factory=dict)
    connected: set[DrivenLoop] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    closed: bool = False

    def use(self, loop: DrivenLoop) -> None:
        """A request on a loop: opens a session, if there is none."""
        self.sessions[loop] = True
        self.counts["opened"] += 1

    def end(self, loop: DrivenLoop, how: str) -> None:
        self.sessions.pop(loop)
        self.connected.discard(loop)
        self.counts[how] += 1

    def close(self, *, on: DrivenLoop | None = None) -> None:
        """Each session ends: gracefully, where its loop runs, or is the one `on` which `aclose` runs."""
        self.closed = True
        for loop, alive in tuple(self.sessions.items()):
            self.end(loop, "closed" if alive and (loop.runs_on or loop is on) else "forced")


class LifecycleMachine(RuleBasedStateMachine):
    """Does to stores what programs do. Handles are known by number, so that only `handles` keeps them alive."""

    server: ClassVar[FolderServer]

    def __init__(self) -> None:
        super().__init__()
        self.before = Footprint.now()
        self.numbers = itertools.count()
        self.handles: dict[int, ManagedStore] = {}
        self.closed_handles: set[int] = set()
        self.owners: dict[int, Owner] = {}  # the number of a handle → its owner
        self.all_owners: list[Owner] = []  # those without a handle too, which may have sessions to end
        self.loops: list[DrivenLoop] = [ZarrLoop()]
        self.content = dict.fromkeys(KEYS, b"first")
        for key, content in self.content.items():
            (self.server.root / key).parent.mkdir(exist_ok=True)
            (self.server.root / key).write_bytes(content)

    # Choices: a number stands for whichever of those that there are

    def _handle(self, choice: int) -> int:
        return sorted(self.handles)[choice % len(self.handles)]

    def _loop(self, choice: int) -> DrivenLoop:
        return self.loops[choice % len(self.loops)]

    def _use(self, number: int, loop: DrivenLoop) -> None:
        """A request: if it opens a session, that cuts off first those of any store whose loop was closed."""
        if loop not in self.owners[number].sessions:
            for owner in self.all_owners:
                for other in [other for other, alive in owner.sessions.items() if not alive]:
                    owner.end(other, "forced")
            self.owners[number].use(loop)

    def _is_closed(self, number: int) -> bool:
        return number in self.closed_handles or self.owners[number].closed

    # Making

    @precondition(lambda self: len(self.handles) < 5)
    @rule()
    def construct(self) -> None:
        owner = Owner()
        self.all_owners.append(owner)
        self._add(ManagedStore(self.server.url), owner)

    @precondition(lambda self: 0 < len(self.handles) < 6)
    @rule(choice=st.integers(0, 9), read_only=st.booleans())
    def derive(self, choice: int, read_only: bool) -> None:
        number = self._handle(choice)
        if self._is_closed(number):
            self._refused(lambda: self.handles[number].with_read_only(read_only))
        else:
            self._add(self.handles[number].with_read_only(read_only), self.owners[number])

    def _add(self, handle: ManagedStore, owner: Owner) -> None:
        number = next(self.numbers)
        self.handles[number], self.owners[number] = handle, owner
        owner.handles.add(number)

    @precondition(lambda self: len(self.loops) < 4)
    @rule(kind=st.sampled_from([PausedLoop, ThreadLoop]))
    def new_loop(self, kind: type[PausedLoop | ThreadLoop]) -> None:
        self.loops.append(kind())

    # Using

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), on=st.integers(0, 9), key=st.sampled_from(KEYS))
    def read(self, choice: int, on: int, key: str) -> None:
        number, loop = self._handle(choice), self._loop(on)
        if self._is_closed(number):
            self._refused(lambda: loop.run(self.handles[number].get(key, PROTOTYPE)))
            return
        self._read(number, loop, key)

    def _read(self, number: int, loop: DrivenLoop, key: str) -> None:
        self._use(number, loop)
        value = loop.run(self.handles[number].get(key, PROTOTYPE))
        assert value is not None
        assert value.to_bytes() == self.content[key]
        self.owners[number].connected.add(loop)

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), on=st.integers(0, 9), key=st.sampled_from(KEYS), content=st.binary(max_size=9))
    def write(self, choice: int, on: int, key: str, content: bytes) -> None:
        number, loop = self._handle(choice), self._loop(on)
        handle = self.handles[number]
        if self._is_closed(number):
            self._refused(lambda: loop.run(handle.set(key, PROTOTYPE.buffer.from_bytes(content))))
        elif handle.read_only:
            with pytest.raises(ValueError, match="read-only"):
                loop.run(handle.set(key, PROTOTYPE.buffer.from_bytes(content)))
        else:
            self._use(number, loop)
            loop.run(handle.set(key, PROTOTYPE.buffer.from_bytes(content)))
            self.owners[number].connected.discard(loop)
            self.content[key] = content

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), on=st.integers(0, 9))
    def list_keys(self, choice: int, on: int) -> None:
        number, loop = self._handle(choice), self._loop(on)

        async def listed() -> list[str]:
            return sorted([key async for key in self.handles[number].list_dir("")])

        if self._is_closed(number):
            self._refused(lambda: loop.run(listed()))
        else:
            self._use(number, loop)
            assert loop.run(listed()) == ["a", "b"]
            self.owners[number].connected.discard(loop)

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), on=st.integers(0, 9), turns=st.integers(1, 30))
    def cancel(self, choice: int, on: int, turns: int) -> None:
        """Cancel a read at any moment, that in which it opens the session too; the next one does as if nothing were."""
        number, loop = self._handle(choice), self._loop(on)
        if self._is_closed(number):
            return

        async def cancelled() -> None:
            task = asyncio.ensure_future(self.handles[number].get(KEYS[0], PROTOTYPE))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        self._use(number, loop)
        loop.run(cancelled())
        self._read(number, loop, KEYS[0])

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), key=st.sampled_from(KEYS))
    def read_in_a_thread(self, choice: int, key: str) -> None:
        """zarr's synchronous API, from another thread."""
        number = self._handle(choice)
        if not self._is_closed(number):
            thread = threading.Thread(target=self._read, args=(number, self.loops[0], key))
            thread.start()
            thread.join()

    # Ending

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9))
    def close(self, choice: int) -> None:
        number = self._handle(choice)
        self.handles[number].close()
        self._closed(number)

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), on=st.integers(0, 9))
    def aclose(self, choice: int, on: int) -> None:
        number, loop = self._handle(choice), self._loop(on)
        loop.run(self.handles[number].aclose())
        self._closed(number, on=loop)

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9), fails=st.booleans())
    def enter_and_leave(self, choice: int, fails: bool) -> None:
        number = self._handle(choice)
        if self._is_closed(number):
            self._refused(self.handles[number].__enter__)
            return
        error = ValueError("of the body")
        caught: list[BaseException] = []
        try:
            with self.handles[number] as entered:
                assert entered is self.handles[number]
                if fails:
                    raise error
        except ValueError as other:
            caught.append(other)
        assert caught == [error] * fails
        del entered, caught
        self._closed(number)

    def _closed(self, number: int, *, on: DrivenLoop | None = None) -> None:
        """The store itself closes everything, and so does the last of its handles; any other closes itself alone."""
        owner = self.owners[number]
        self.closed_handles.add(number)
        owner.handles.discard(number)
        if not owner.closed and (not self.handles[number]._is_derived or not owner.handles):
            owner.close(on=on)

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 9))
    def drop(self, choice: int) -> None:
        """The last handle of a store that holds anything is warned of, once; its sessions end in the background."""
        number = self._handle(choice)
        owner = self.owners.pop(number)
        owner.handles.discard(number)
        forgotten = not owner.closed and not owner.handles and bool(owner.sessions)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del self.handles[number]
            gc.collect()  # asyncio's own frames keep what raised in them in a cycle
        assert [str(warning.message) for warning in caught if "never closed" not in str(warning.message)] == []
        assert len(caught) == forgotten
        if forgotten:
            owner.close()

    @precondition(lambda self: len(self.loops) > 1)
    @rule(choice=st.integers(0, 9), properly=st.booleans())
    def end_loop(self, choice: int, properly: bool) -> None:
        """A loop takes its sessions with it; one that is closed without its generators leaves them behind."""
        loop = self.loops.pop(1 + choice % (len(self.loops) - 1))
        loop.end(properly=properly)
        for owner in self.all_owners:
            if loop in owner.sessions:
                if properly:
                    owner.end(loop, "closed")
                else:
                    owner.sessions[loop] = False

    def _refused(self, use: Any) -> None:
        with pytest.raises(StoreClosedError, match=re.escape(self.server.url)):
            use()

    # Checking

    @invariant()
    def statistics_are_right(self) -> None:
        deadline = time.monotonic() + 2  # a forgotten store is closed in the background
        while any(handle.statistics().state == "closing" for handle in self.handles.values()):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        for number, handle in self.handles.items():
            owner, statistics = self.owners[number], handle.statistics()
            state = "closed" if owner.closed else "open" if owner.counts["opened"] else "new"
            assert statistics.state == state
            assert statistics.handles == len(owner.handles)
            assert statistics.loops == len(owner.sessions)
            assert statistics.requests_in_flight == 0
            assert {name: getattr(statistics, name) for name in ("opened", "closed", "forced")} == {
                name: owner.counts[name] for name in ("opened", "closed", "forced")
            }
            assert handle.closed == self._is_closed(number)

    @invariant()
    def the_connections_are_those_of_the_sessions(self) -> None:
        least = sum(len(owner.connected) for owner in self.all_owners)
        most = sum(len(owner.sessions) for owner in self.all_owners)
        deadline = time.monotonic() + 2  # what is closed in the background takes a moment
        while not least <= (found := Footprint.now().sockets - self.before.sockets) <= most:
            assert time.monotonic() < deadline, f"{found} connections, not {least} to {most}"
            time.sleep(0.001)

    def teardown(self) -> None:
        for handle in self.handles.values():
            handle.close()
        for loop in self.loops[1:]:
            loop.end(properly=True)
        deadline = time.monotonic() + 2
        while (grown := self.before.grown_by(Footprint.now())) != NOTHING:
            assert time.monotonic() < deadline, grown
            time.sleep(0.001)


@pytest.fixture
def server() -> Iterator[FolderServer]:
    """A server of one test alone; in the end it must see no connection."""
    with http_server() as server:
        yield server
        assert server.wait_for_connections(0) == 0


@pytest.mark.timeout(400)
def test_what_is_open_is_what_the_model_says(server: FolderServer) -> None:
    sync(asyncio.sleep(0))  # zarr's loop is there before anything is counted
    LifecycleMachine.server = server
    gc.collect()
    gc.freeze()  # what other tests have left alive: each of the thousands of collections would walk through all of it
    try:
        run_state_machine_as_test(
            LifecycleMachine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # as conftest leaves it
