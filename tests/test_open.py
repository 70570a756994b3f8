"""`open_group` and `open_array`: zarr's own functions for the time of a block, and nothing is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import managed_store
from managed_store import (
    ArgumentError,
    ArgumentTypeError,
    ManagedStoreError,
    StoreClosedError,
    StoreCloseError,
    open_array,
    open_group,
)
from tests.conftest import BACKENDS, Place
from tests.hierarchy import EXPECTED
from tests.servers import FolderServer, RunningServer
from tests.using import leaves_nothing


@pytest.fixture
def server(backend: str, place: Place, request: pytest.FixtureRequest) -> RunningServer:
    """The server of `backend`."""
    found: RunningServer = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_gives_a_group(backend: str, place: Place, server: RunningServer) -> None:
    """The group works within the block, its sessions are open there, and none afterwards."""

    def use() -> zarr.Group:
        with open_group(place.url, mode="r", storage_options=place.options) as group:
            assert type(group) is zarr.Group
            np.testing.assert_array_equal(group["numbers"][:], EXPECTED)
            assert server.connections() > 0
        return group

    group = leaves_nothing(use, server)
    with pytest.raises(StoreClosedError, match="was closed"):
        group["numbers"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_async_with_gives_an_async_group(backend: str, place: Place, server: RunningServer) -> None:
    """The same on the running loop."""

    async def use() -> zarr.AsyncGroup:
        async with open_group(place.url, mode="r", storage_options=place.options) as group:
            assert type(group) is zarr.AsyncGroup
            numbers: Any = await group.getitem("numbers")
            np.testing.assert_array_equal(await numbers.getitem(...), EXPECTED)
            assert group.store.statistics().loops == 1  # type: ignore[attr-defined]
            assert server.connections() > 0
        with pytest.raises(StoreClosedError, match="was closed"):
            await group.getitem("numbers")
        return group

    leaves_nothing(lambda: asyncio.run(use()), server)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays(backend: str, place: Place, server: RunningServer) -> None:
    """`open_array` gives an Array or an AsyncArray, at a path in the store."""

    async def use() -> None:
        async with open_array(place.url, path="numbers", mode="r", storage_options=place.options) as array:
            assert isinstance(array, zarr.AsyncArray)
            np.testing.assert_array_equal(await array.getitem(...), EXPECTED)

    def uses() -> None:
        with open_array(place.url, path="numbers", mode="r", storage_options=place.options) as array:
            assert isinstance(array, zarr.Array)
            np.testing.assert_array_equal(array[:], EXPECTED)
        asyncio.run(use())

    leaves_nothing(uses, server)


@pytest.mark.parametrize("backend", ["s3", "file", "memory"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_writing(backend: str, empty_place: Place, zarr_format: Any) -> None:
    """What is made by one block is there in the next, with zarr's own parameters."""
    place = empty_place
    with open_group(
        place.url, mode="w", storage_options=place.options, zarr_format=zarr_format, attributes={"answer": 42}
    ) as group:
        assert group.metadata.zarr_format == zarr_format
        group.create_array("a", shape=(3,), dtype="i4")[:] = 7
    with open_array(
        f"{place.url}/b", mode="a", storage_options=place.options, zarr_format=zarr_format, shape=(2,), dtype="i8",
        chunks=(1,), fill_value=3,
    ) as array:  # fmt: skip
        assert array.chunks == (1,)
        array[1] = 4
    with open_group(place.url, mode="r", storage_options=place.options, use_consolidated=False) as group:
        assert group.attrs["answer"] == 42
        np.testing.assert_array_equal(group["a"][:], [7, 7, 7])
        np.testing.assert_array_equal(group["b"][:], [3, 4])


def test_modes_are_those_of_zarr(tmp_path: Path) -> None:
    """By default a group is made where there is none, and an array is not; "r" refuses writes."""
    url = str(tmp_path / "a.zarr")
    for mode in ("r", "r+"):
        with pytest.raises(FileNotFoundError, match="No group found"):
            open_group(url, mode=mode).__enter__()  # type: ignore[arg-type]
    assert not (tmp_path / "a.zarr").exists()
    with open_group(url) as group:  # "a"
        group.attrs["answer"] = 42
    with pytest.raises(FileExistsError):
        open_group(url, mode="w-").__enter__()
    for mode in ("r+", "a"):
        with open_group(url, mode=mode) as group:  # type: ignore[arg-type]
            assert group.attrs["answer"] == 42
    with open_group(url, mode="r") as group:
        assert group.store.read_only
        with pytest.raises(ValueError, match="read-only"):
            group.attrs["answer"] = 43
    with pytest.raises(FileNotFoundError, match=r"No array found|a\.zarr/b$"):
        open_array(url, path="b").__enter__()
    with open_array(url, path="b", mode="w-", shape=(2,), dtype="i4", fill_value=0) as array:
        array[0] = 1
    with open_array(url, path="b") as array:  # no mode: reads and writes what is there
        array[1] = 2
        np.testing.assert_array_equal(array[:], [1, 2])
    with open_group(url, mode="w") as group:
        assert list(group) == []


def test_a_path_object_will_do(tmp_path: Path) -> None:
    """A local path need not be a string."""
    with open_group(tmp_path / "a.zarr", attributes={"answer": 42}) as group:
        assert group.attrs["answer"] == 42


def test_nothing_is_opened_unless_entered(http: FolderServer) -> None:
    """Neither making one nor dropping it opens a connection or warns."""
    opened = http.opened()
    opening = open_group(f"{http.url}/data.zarr")
    assert "open_group" in repr(opening)
    del opening
    gc.collect()
    assert http.opened() == opened


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_left_if_opening_fails(backend: str, place: Place, server: RunningServer) -> None:
    """There is no such group: zarr's error comes out, and what it took to find that out is closed."""

    async def async_failure() -> None:
        with pytest.raises(FileNotFoundError):
            async with open_array(f"{place.url}/none", mode="r", storage_options=place.options):
                raise AssertionError

    def failures() -> None:
        with pytest.raises(FileNotFoundError):
            with open_group(f"{place.url}/none", mode="r", storage_options=place.options):
                raise AssertionError
        asyncio.run(async_failure())

    leaves_nothing(failures, server)


def test_it_is_entered_once(http: FolderServer) -> None:
    """A second block, within the first or after it, is refused, and does not disturb the first."""
    opening = open_group(f"{http.url}/data.zarr", mode="r")
    with opening as group:
        with pytest.raises(ManagedStoreError, match=r"entered already.*call open_group again"):
            opening.__enter__()
        assert list(group) == ["numbers"]
    with pytest.raises(StoreClosedError, match="was closed"):
        opening.__enter__()

    async def use() -> None:
        opening = open_array(f"{http.url}/data.zarr", path="numbers", mode="r")
        async with opening as array:
            with pytest.raises(ManagedStoreError, match=r"entered already.*call open_array again"):
                await opening.__aenter__()
            assert (await array.getitem((0, 1))) == 1
        with pytest.raises(StoreClosedError, match="was closed"):
            await opening.__aenter__()

    asyncio.run(use())
    assert http.wait_for_connections(0) == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_the_exception_of_the_body_comes_out(http: FolderServer, error: type[BaseException]) -> None:
    """As it was raised; and the block has closed all the same."""

    def body() -> None:
        with open_group(f"{http.url}/data.zarr", mode="r"):
            raise error("of the body")

    async def async_body() -> None:
        async with open_group(f"{http.url}/data.zarr", mode="r"):
            raise error("of the body")

    def uses() -> None:
        with pytest.raises(error, match="of the body"):
            body()
        loop = asyncio.new_event_loop()
        with contextlib.closing(loop), pytest.raises(error, match="of the body"):
            loop.run_until_complete(async_body())

    leaves_nothing(uses, http)


def hold(store: Any, let_go: threading.Event) -> threading.Thread:
    """Have the loop of another thread open a session of the store; it answers nothing until it is let go."""
    opened = threading.Event()

    async def open_and_block() -> None:
        await store.exists("zarr.json")
        opened.set()
        let_go.wait(10)

    thread = threading.Thread(target=lambda: asyncio.run(open_and_block()))
    thread.start()
    assert opened.wait(10)
    return thread


@pytest.mark.parametrize("fails", [True, False])
def test_a_failure_to_close_is_noted_on_the_exception_of_the_body(http: FolderServer, fails: bool) -> None:
    """Another loop that does not answer: the body's exception wins, and without one it is StoreCloseError."""
    let_go = threading.Event()
    thread = None
    with pytest.raises(KeyError if fails else StoreCloseError) as caught:
        with open_group(f"{http.url}/data.zarr", mode="r", close_timeout=0.3) as group:
            thread = hold(group.store, let_go)
            if fails:
                raise KeyError("of the body")
    let_go.set()
    assert thread is not None
    thread.join()
    message = "".join(caught.value.__notes__) if fails else str(caught.value)
    assert "took more than close_timeout=0.3 seconds" in message
    assert http.wait_for_connections(0) == 0


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that takes no note."""

    code: int


def test_an_exception_that_takes_no_note_comes_out_as_it_is(http: FolderServer) -> None:
    """A failure to close does not replace it by what its class raises when it is told of that."""
    let_go = threading.Event()
    thread = None
    with pytest.raises(FrozenError), open_group(f"{http.url}/data.zarr", mode="r", close_timeout=0.1) as group:
        thread = hold(group.store, let_go)
        raise FrozenError(1)
    let_go.set()
    assert thread is not None
    thread.join()
    assert http.wait_for_connections(0) == 0


def test_a_cancelled_opening_leaves_nothing(http: FolderServer) -> None:
    """The task is cancelled while zarr looks for the group, or just after."""

    async def use() -> None:
        async def block() -> None:
            async with open_group(f"{http.url}/data.zarr", mode="r"):
                await asyncio.sleep(10)

        for turns in (1, 3, 10, 30):
            task = asyncio.create_task(block())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await asyncio.to_thread(http.wait_for_connections, 0) == 0

    asyncio.run(use())


def test_many_at_once(http: FolderServer) -> None:
    """Blocks on many threads and in many tasks do not disturb one another."""
    url = f"{http.url}/data.zarr"

    def read(_: int) -> int:
        with open_array(url, path="numbers", mode="r") as array:
            return int(np.asarray(array[:]).sum())

    async def aread() -> int:
        async with open_array(url, path="numbers", mode="r") as array:
            return int(np.asarray(await array.getitem(...)).sum())

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(aread() for _ in range(20)))

    expected = [int(EXPECTED.sum())] * 20
    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(read, range(20))) == expected
    assert asyncio.run(all_of_them()) == expected
    assert http.wait_for_connections(0) == 0


def test_inside_a_running_loop(http: FolderServer) -> None:
    """As in a notebook: `with` and zarr's synchronous API work there, and leave nothing."""

    async def cell() -> None:
        with open_group(f"{http.url}/data.zarr", mode="r") as group:
            np.testing.assert_array_equal(group["numbers"][:], EXPECTED)

    leaves_nothing(lambda: asyncio.run(cell()), http)


def test_a_forgotten_one_is_warned_of_by_line(http: FolderServer) -> None:
    """A block that was entered by hand and never left: the warning names the line of the call."""

    def forget() -> None:
        group = open_group(f"{http.url}/data.zarr", mode="r").__enter__()  # here
        assert list(group) == ["numbers"]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forget()
        gc.collect()
    lines, first = inspect.getsourcelines(forget)
    line = first + next(number for number, text in enumerate(lines) if "# here" in text)
    assert [(each.category, each.filename, each.lineno) for each in caught] == [(ResourceWarning, __file__, line)]
    assert http.wait_for_connections(0) == 0


@pytest.mark.parametrize("function", [open_group, open_array])
def test_bad_arguments_are_refused_by_the_call(function: Callable[..., Any]) -> None:
    """Each error names the argument, what was given, and what would work."""
    with pytest.raises(ArgumentError, match=r"mode must be one of 'r', 'r\+', 'a', 'w', 'w-'; got 'x'"):
        function("memory://a", mode="x")
    with pytest.raises(ArgumentTypeError, match=r"url must be a string .* got ManagedFSSpecStore"):
        function(managed_store.ManagedStore("memory://a"))
    with pytest.raises(ArgumentError, match="url must name a store"):
        function("")
    with pytest.raises(ArgumentTypeError, match="storage_options must be a mapping"):
        function("memory://a", storage_options=3)
    with pytest.raises(ArgumentError, match="close_timeout"):
        function("memory://a", close_timeout=-1)
    with pytest.raises(ArgumentTypeError, match=r"no parameter 'shap', .* zarr .* which takes: .*zarr_format"):
        function("memory://a", shap=(3,))
    with pytest.raises(ArgumentTypeError, match=r"takes no 'chunk_store': give it the url"):
        function("memory://a", chunk_store={})
    with pytest.raises(TypeError, match="positional"):
        function("memory://a", "r")


async def test_what_is_not_entered_says_so() -> None:
    """Whoever takes it for the group itself is told to use a block."""
    opening: Any = open_group("memory://not-entered.zarr")
    with pytest.raises(AttributeError, match=r"open_group\(\) opens nothing by itself: use `with .*'attrs'"):
        opening.attrs  # noqa: B018
    with pytest.raises(TypeError, match=r"open_group\(\) opens nothing by itself: use `with"):
        opening["a"]
    with pytest.raises(TypeError, match=r"or `async with`"):
        await opening


def test_a_group_takes_no_parameters_of_an_array() -> None:
    """`shape` is for arrays; and for both, whatever else zarr's own function knows."""
    with pytest.raises(ArgumentTypeError, match="open_group\\(\\) has no parameter 'shape'"):
        open_group("memory://a", shape=(3,))
    open_array("memory://a", shape=(3,), attributes={})
    open_group("memory://a", use_consolidated=False, attributes={})


def test_secrets_are_in_no_message() -> None:
    """Neither in the repr, nor in the error of a second entering."""
    opening = open_group("memory://user:hunter2@place/a?key=hunter3", storage_options={"token": "hunter4"})
    assert "hunter" not in repr(opening)
