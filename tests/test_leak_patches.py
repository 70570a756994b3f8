"""What `leak_check` puts in the place of methods: nobody is to miss it, nor to be kept from using it."""

from __future__ import annotations

import importlib
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from managed_store.testing import leak_check
from managed_store.testing._patches import Patches


def test_a_mock_of_what_is_watched() -> None:
    """A test that puts mocks in its place finds the same signatures as without a check."""

    def start_two() -> None:
        with mock.patch("threading.Thread", autospec=True) as threads:
            threading.Thread(target=int).start()
            threads.return_value.start.assert_called_once_with()
        with mock.patch.object(threading.Thread, "start", autospec=True) as start:
            thread = threading.Thread(target=int)
            thread.start()
            start.assert_called_once_with(thread)

    start_two()
    with leak_check():
        start_two()


def test_a_class_that_calls_its_base_by_name() -> None:
    """Its instances are noticed as those of others are."""

    class Named(socket.socket):
        def __init__(self) -> None:
            socket.socket.__init__(self)

    with leak_check(on_leak="report", grace=0) as check:
        left = Named()
    left.close()
    assert [(leak.kind, leak.stack[0].function.rpartition(".")[2]) for leak in check.report] == [("socket", "__init__")]


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that is being imported on another thread, until its gate is opened."""
    (tmp_path / "slow_module.py").write_text(
        "import builtins\nbuiltins.gates[0].set()\nassert builtins.gates[1].wait(30)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    gates = (threading.Event(), threading.Event())
    monkeypatch.setattr("builtins.gates", gates, raising=False)
    thread = threading.Thread(target=importlib.import_module, args=("slow_module",))
    thread.start()
    assert gates[0].wait(30)
    yield lambda: (gates[1].set(), thread.join(30))
    gates[1].set()
    thread.join(30)
    sys.modules.pop("slow_module", None)


def test_a_module_that_another_thread_is_just_importing(slow_module: Any, tmp_path: Path) -> None:
    """It is patched when it has been loaded: as soon as anything else is imported, or anybody looks."""
    (tmp_path / "another_module.py").write_text("")
    patched: list[ModuleType] = []
    patches = Patches()
    patches.when_imported("slow_module", patched.append)
    patches.begin()
    try:
        patches.catch_up()
        assert not patched
        slow_module()
        importlib.import_module("another_module")
        assert [module.done for module in patched] == [True]
        patches.catch_up()
        assert len(patched) == 1
    finally:
        patches.undo()
        sys.modules.pop("another_module", None)


def test_one_that_has_been_imported_by_the_next_look(slow_module: Any) -> None:
    """By all who wait for it."""
    patched: list[ModuleType] = []
    patches = Patches()
    patches.when_imported("slow_module", patched.append)
    patches.when_imported("slow_module", patched.append)
    slow_module()
    patches.catch_up()
    assert [module.__name__ for module in patched] == ["slow_module", "slow_module"]


def test_what_two_detectors_wait_for() -> None:
    """uvloop's loops and tasks are both noticed where uvloop is imported within the block."""
    program = """
        from managed_store.testing import leak_check
        with leak_check(on_leak="report", grace=0) as check:
            import uvloop
            left = uvloop.new_event_loop()
        assert "event loop" in {leak.kind for leak in check.report}, check.report
        left.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    subprocess.run(command, check=True, timeout=60)
