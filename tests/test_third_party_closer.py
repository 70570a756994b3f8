"""A store goes through the closer that a third party has registered, and reports what fails there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import Closer, ManagedStore, StoreCloseError, register_closer
from managed_store._closers.http import HttpCloser
from tests.servers import FolderServer
from tests.test_register_closer import ThirdPartyFileSystem, nothing_stays_registered

PROTOTYPE = default_buffer_prototype()


__all__ = ["nothing_stays_registered"]  # the fixture


class RecordingCloser(HttpCloser):
    """Notes its steps, and may fail at some of them."""

    steps: list[str]
    failing: dict[str, Exception]

    def note(self, step: str) -> None:
        self.steps.append(step)
        if step in self.failing:
            raise self.failing[step]

    async def open(self) -> None:
        self.note("open")
        await super().open()

    def seal(self, refuse: Callable[..., Any]) -> None:
        self.note("seal")
        super().seal(refuse)

    async def close(self) -> None:
        await super().close()
        self.note("close")

    def force(self) -> None:
        super().force()
        self.note("force")

    def still_open(self) -> list[str]:
        return self.failing.get("names", super().still_open())  # type: ignore[return-value]


@pytest.fixture
def recording() -> type[RecordingCloser]:
    """A recording closer, registered for the protocol of somebody else."""
    cls = type("Recording", (RecordingCloser,), {"steps": [], "failing": {}})
    register_closer("thirdparty", cls)
    return cls


@pytest.fixture
def url(http: FolderServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hierarchy on the HTTP server by the protocol of somebody else."""
    monkeypatch.setattr(ThirdPartyFileSystem, "_strip_protocol", classmethod(lambda cls, path: to_http(path)))
    return f"{http.url}/data.zarr".replace("http://", "thirdparty://")


def to_http(path: str) -> str:
    return path.replace("thirdparty://", "http://")


def test_a_store_goes_through_a_registered_closer(url: str, recording: Any, http: FolderServer) -> None:
    """Over a URL with the protocol of somebody else: opened, sealed and closed by their closer."""
    with ManagedStore(url) as store:
        assert sync(store.exists("zarr.json"))
        assert isinstance(store.fs, ThirdPartyFileSystem)
        assert recording.steps == ["open"]
    assert recording.steps == ["open", "seal", "close"]
    assert http.wait_for_connections(0) == 0


async def test_a_failing_close_is_forced(url: str, recording: Any, http: FolderServer) -> None:
    """A closer whose `close` raises is forced; where that leaves nothing open, leaving does not fail."""
    recording.failing["close"] = OSError("their close failed")
    async with ManagedStore(url) as store:
        await store.get("zarr.json", PROTOTYPE)
    assert recording.steps == ["open", "seal", "close", "force"]
    assert await asyncio.to_thread(http.wait_for_connections, 0) == 0


async def test_what_a_closer_leaves_open_is_reported(url: str, recording: Any) -> None:
    """StoreCloseError names it; the exception of the body wins."""
    recording.failing["names"] = ["telegraph line"]
    with pytest.raises(StoreCloseError, match="left open: telegraph line") as caught:
        async with ManagedStore(url) as store:
            await store.get("zarr.json", PROTOTYPE)
    assert caught.value.left_open == ("telegraph line",)
    with pytest.raises(ZeroDivisionError) as body:
        async with ManagedStore(url) as store:
            await store.get("zarr.json", PROTOTYPE)
            _ = 1 / 0
    assert "left open: telegraph line" in "".join(body.value.__notes__)


@pytest.mark.parametrize("step", ["seal", "force"])
async def test_a_step_that_must_not_raise_but_does(step: str, url: str, recording: Any, http: FolderServer) -> None:
    """A closer that breaks the contract neither masks the body's exception nor keeps the session open for ever."""
    recording.failing[step] = OSError(f"their {step} failed")
    recording.failing["close"] = OSError("their close failed")
    store = ManagedStore(url)
    with pytest.raises(ZeroDivisionError):
        async with store:
            await store.get("zarr.json", PROTOTYPE)
            _ = 1 / 0
    assert store.closed
    assert store.statistics().loops == 0
    recording.failing.clear()
    await store.aclose()


@pytest.mark.parametrize("step", ["close", "force", "seal"])
async def test_everything_is_attempted_in_a_chain(
    step: str, http: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the closer of the outer filesystem raises, those that it stands on are closed all the same."""
    steps: list[str] = []

    class Failing(Closer):
        async def close(self) -> None:
            steps.append("close")
            raise OSError("their close failed")

        def seal(self, refuse: Callable[..., Any]) -> None:
            if step == "seal":
                raise OSError("their seal failed")

        def force(self) -> None:
            steps.append("force")
            if step == "force":
                raise OSError("their force failed")

    register_closer("simplecache", Failing)
    store = ManagedStore(f"simplecache::{http.url}/data.zarr")
    with contextlib.suppress(Exception if step != "close" else ()):  # where they break the contract, that may show
        async with store:
            await store.get("zarr.json", PROTOTYPE)
            assert http.connections() == 1
    assert "close" in steps or step == "seal"
    assert await asyncio.to_thread(http.wait_for_connections, 0) == 0
    assert store.statistics().loops == 0


@pytest.mark.parametrize("step", ["seal", "force", "names"])
def test_a_paused_loop_whose_closer_fails(step: str, url: str, recording: Any, http: FolderServer) -> None:
    """What is wrong is told here too, and the session of another loop is closed all the same."""
    store = ManagedStore(url)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for loop in loops:
        loop.run_until_complete(store.get("zarr.json", PROTOTYPE))
    recording.failing[step] = ["telegraph line"] if step == "names" else OSError(f"their {step} failed")
    with pytest.raises(StoreCloseError, match="telegraph line" if step == "names" else "their") as caught:
        store.close()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2
    assert store.statistics().loops == 0
    if step == "names":
        assert caught.value.left_open == ("telegraph line",) * 2
        assert http.wait_for_connections(0) == 0
    recording.failing.clear()
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_a_paused_loop_whose_outer_closer_fails(http: FolderServer) -> None:
    """What the outer filesystem stands on is cut off here too."""

    class Failing(Closer):
        def force(self) -> None:
            raise OSError("their force failed")

    register_closer("reference", Failing)
    references = {"version": 1, "refs": {"zarr.json": [f"{http.url}/data.zarr/zarr.json"]}}
    store = ManagedStore("reference://", storage_options={"fo": references})
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.get("zarr.json", PROTOTYPE))
    with pytest.raises(ExceptionGroup, match="closing failed"):
        store.close()
    assert http.wait_for_connections(0) == 0
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
