"""What the pytest plugin does where it is on: a check around each test, and one around the session."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from managed_store.errors import ArgumentError
from managed_store.testing._leak_check import leak_check
from managed_store.testing._report import KINDS, Leak, LeakReport
from managed_store.testing._watch import WATCH, Mark

__all__ = ["Guard"]

# Seconds that what is being closed in the background is waited for.
_GRACE = 0.25

# How many objects are looked at for what a fixture holds, and what leads everywhere.
_FARTHEST = 500_000
_NOT_ENTERED = (
    type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType, types.CoroutineType,
    types.GeneratorType, asyncio.AbstractEventLoop, asyncio.Future,
    pytest.Item, pytest.Config, pytest.FixtureRequest,
)  # fmt: skip

# What one leak is known by from one look to the next.
_Key = tuple[object, ...]


@dataclass
class Guard:
    """Tells what each test leaves open, and what is left at the end of the session that no test was told of.

    What the set-up of a fixture of a broader scope opens is that fixture's, and what is opened later on by an
    object that such a fixture holds: neither is the leak of the test that happened to be running. Both are looked at
    when the session ends, in the teardown of its last test: that is where a process of pytest-xdist can say it.

    Parameters
    ----------
    broader_fixtures : dict
        The fixtures of a scope that is broader than a test, as they are set up.
    of_all_tests : bool
        Whether every test is checked, and the session too; not only those that ask for it.
    """

    broader_fixtures: dict[int, pytest.FixtureDef[Any]]
    of_all_tests: bool
    _session: Mark = field(default_factory=WATCH.begin)
    _item: pytest.Item | None = None
    _mark: Mark | None = None
    _unmarked: object = None
    _told: set[_Key] = field(default_factory=set)
    _of_fixtures: set[_Key] = field(default_factory=set)

    def end(self) -> None:
        """End the watch."""
        WATCH.end()

    def begin_test(self, item: pytest.Item) -> str | None:
        """Begin to check a test, before any of its fixtures is set up; say what is wrong with a marker of it."""
        self._item, self._mark = item, WATCH.mark(quickly=self.of_all_tests)
        # Looking through all the marks takes longer than all the rest, and tests come one file after the other.
        if item.parent is not None and item.parent is not self._unmarked:
            self._unmarked = None if "leaks" in item.parent.keywords else item.parent
        if self._unmarked is not None and "leaks" not in [mark.name for mark in item.own_markers]:
            return None
        return _wrong_marker(item)

    def check_of(self, item: pytest.Item) -> leak_check:
        """What the fixture `leak_check` gives."""
        if self._item is not item:  # asked for by `getfixturevalue`, which nobody knows before
            self.begin_test(item)
        assert self._mark is not None
        return leak_check._since(self._mark)

    def end_test(self, item: pytest.Item) -> str:
        """Say what a test has left open after its fixtures were torn down, or nothing; also if it is not checked."""
        mark = self._mark
        if self._item is not item or mark is None:
            return ""
        self._item = self._mark = None
        if WATCH.nothing_since(mark):
            return ""
        report = self._waiting(lambda: self._of_test(item, mark))
        return f"{item.nodeid} has {report}" if report else ""

    def end_session(self) -> str:
        """Say what is left open at the end of the session, or nothing."""
        if not self.of_all_tests:
            return ""
        report = self._waiting(self._of_session)
        return f"At the end of the session there is {report}" if report else ""

    def setting_up_a_fixture(self) -> Callable[[], None]:
        """Begin to set up a fixture of a broader scope; call what is returned when that is done."""
        mark = WATCH.mark()
        return lambda: self._of_fixtures.update(map(_key, WATCH.leaks(mark)))

    def _of_test(self, item: pytest.Item, mark: Mark) -> LeakReport:
        found = list(WATCH.found(mark))
        if not found or _wrong_marker(item) is not None:
            return LeakReport()
        allowed, leaks = _allowed(item), []
        for leak, thing in found:
            if _key(leak) in self._of_fixtures or (thing is not None and self._is_held_by_a_fixture(thing)):
                continue
            self._told.add(_key(leak))
            if not any(accepts(leak) for accepts in allowed):
                leaks.append(leak)
        return LeakReport(tuple(leaks))

    def _of_session(self) -> LeakReport:
        return LeakReport(tuple(leak for leak in WATCH.leaks(self._session) if _key(leak) not in self._told))

    def _is_held_by_a_fixture(self, thing: Any) -> bool:
        results = [fixturedef.cached_result for fixturedef in self.broader_fixtures.values()]
        values = [result[0] for result in results if result is not None]
        return _reaches(values, thing)

    def _waiting(self, look: Callable[[], LeakReport]) -> LeakReport:
        report, deadline, pause = look(), time.monotonic() + _GRACE, 0.0
        while report and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause + 0.002, 0.02)
            report = look()
        return report


def _reaches(roots: list[Any], thing: Any) -> bool:
    """Whether an object is reached from others, by whatever they refer to but what leads everywhere."""
    seen, queue = {id(roots)}, list(roots)
    for looked_at, current in enumerate(queue):  # grows while it is walked through
        if current is thing:
            return True
        # A class of its own is more than a thread: paramiko's connection is one.
        if id(current) in seen or isinstance(current, _NOT_ENTERED) or type(current) is threading.Thread:
            continue
        if looked_at >= _FARTHEST:
            break
        seen.add(id(current))
        queue += gc.get_referents(current)
    return False


def _key(leak: Leak) -> _Key:
    what = leak.what.partition(",")[0] if leak.kind == "filesystem" else leak.what
    return leak.kind, what, leak.stack


def _wrong_marker(item: pytest.Item) -> str | None:
    try:
        _allowed(item)
    except ArgumentError as error:
        return str(error)
    return None


def _allowed(item: pytest.Item) -> list[Callable[[Leak], bool]]:
    return [accepts for marker in item.iter_markers("leaks") for accepts in _of_marker(marker)]


def _of_marker(marker: pytest.Mark) -> Iterator[Callable[[Leak], bool]]:
    if marker.args or set(marker.kwargs) - {"allow"}:
        raise ArgumentError("The marker leaks takes one argument, by its name: leaks(allow=...).")
    if not marker.kwargs:
        yield lambda leak: True
        return
    allow = marker.kwargs["allow"]
    for each in [allow] if isinstance(allow, str) or not isinstance(allow, Iterable) else allow:
        if isinstance(each, str) and each in KINDS:
            yield _of_kind(each)
        elif callable(each):
            yield each
        else:
            given = repr(each) if isinstance(each, str) else type(each).__name__
            raise ArgumentError(
                f"The marker leaks(allow=...) takes functions of a Leak, and kinds: {', '.join(KINDS)}; got {given}."
            )


def _of_kind(kind: str) -> Callable[[Leak], bool]:
    return lambda leak: leak.kind == kind
