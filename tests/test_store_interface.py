"""The store answers for every public name of the installed zarr's `Store`, open and closed, on HTTP and in memory."""

from __future__ import annotations

import inspect
import pickle
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.storage import MemoryStore

from managed_store import ManagedFSSpecStore, StoreClosedError
from tests.servers import FolderServer

PROTOTYPE = default_buffer_prototype()
CONTENT = {"zarr.json": b"{}", "a/zarr.json": b"[1]", "a/c/0": b"0123456789", "a/c/1": b"", "ab/zarr.json": b"other"}

INHERITED = {
    "open": "makes the store by its constructor and opens it by `_open`, which refuses a closed one",
    "read_only": "plain data, which no filesystem has a say in",
    "supports_consolidated_metadata": "consolidated metadata is a key like any other",
    "get_ranges_sync": "asks for `get_sync`, which only stores without an event loop have",
}
"""Names that `ManagedFSSpecStore` takes from zarr's `Store` as they are, each with the reason why that is right."""


def public_names() -> list[str]:
    """Every public name of the installed zarr's `Store`."""
    return [name for name in dir(Store) if not name.startswith("_")]


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_is_answered_for(name: str) -> None:
    """A name that a later zarr adds to `Store` is either overridden here or known to be right as it is."""
    is_overridden = inspect.getattr_static(ManagedFSSpecStore, name) is not inspect.getattr_static(Store, name)
    assert is_overridden or name in INHERITED, f"Store.{name} is neither overridden nor in the table of inherited names"
    assert not (is_overridden and name in INHERITED), f"Store.{name} is overridden: take it out of the table"


@pytest.mark.parametrize("name", [*public_names(), "_open", "_ensure_open", "__enter__", "__exit__", "__eq__"])
def test_overrides_can_be_called_as_in_zarr(name: str) -> None:
    """What zarr calls with certain arguments, it can call here with the same ones; properties stay properties."""
    theirs, ours = inspect.getattr_static(Store, name), inspect.getattr_static(ManagedFSSpecStore, name)
    assert isinstance(ours, property) == isinstance(theirs, property)
    if ours is theirs or isinstance(ours, property):
        return
    wanted = list(inspect.signature(theirs).parameters.values())
    given = list(inspect.signature(ours).parameters.values())
    # Annotations apart, and the name of the operand of `==`, which nobody gives by name.
    assert [(each.kind, each.default) for each in given] == [(each.kind, each.default) for each in wanted]
    if name != "__eq__":
        assert [each.name for each in given] == [each.name for each in wanted]


@dataclass(frozen=True)
class Filled:
    """A place that holds `CONTENT`, and a way to look at it past the store."""

    url: str
    read: Callable[[str], bytes]


@pytest.fixture(params=["memory", "http"])
def filled(request: pytest.FixtureRequest) -> Filled:
    """A place of the test's own with `CONTENT`, in memory and on an HTTP server."""
    folder = f"/interface-{uuid.uuid4().hex}"
    if request.param == "memory":
        filesystem = MemoryFileSystem(skip_instance_cache=True)
        for key, content in CONTENT.items():
            filesystem.pipe_file(f"{folder}/{key}", content)
        return Filled(f"memory:/{folder}", lambda key: bytes(filesystem.cat_file(f"{folder}/{key}")))
    server: FolderServer = request.getfixturevalue("http")
    for key, content in CONTENT.items():
        server.request("PUT", f"{folder}/{key}", content)
    return Filled(server.url + folder, lambda key: server.request("GET", f"{folder}/{key}")[2])


async def collect(iterator: AsyncIterator[str]) -> list[str]:
    """What an asynchronous iterator of names gives, sorted."""
    return sorted([name async for name in iterator])


async def test_reading_methods_answer(filled: Filled) -> None:
    """Each method that reads says what is there, and tells what is not there from what is empty."""
    async with ManagedFSSpecStore(filled.url) as store:
        whole, missing = await store.get("a/c/0", PROTOTYPE), await store.get("a/c/9", PROTOTYPE)
        assert (whole.to_bytes(), missing) == (CONTENT["a/c/0"], None)
        requests = [RangeByteRequest(2, 4), OffsetByteRequest(8), SuffixByteRequest(3), None]
        # An iterable that can be run through once, as zarr's signature allows.
        parts = await store.get_partial_values(PROTOTYPE, (("a/c/0", each) for each in requests))
        assert [part.to_bytes() for part in parts] == [b"23", b"89", b"789", b"0123456789"]
        assert await store.get_partial_values(PROTOTYPE, [("a/c/9", None)]) == [None]
        assert await store.get_partial_values(PROTOTYPE, []) == []
        assert [await store.exists(key) for key in ("zarr.json", "a/c/1", "a/c/9")] == [True, True, False]
        assert [await store.getsize(key) for key in ("a/c/0", "a/c/1")] == [10, 0]
        with pytest.raises(FileNotFoundError):
            await store.getsize("a/c/9")
        # "ab" is no part of "a".
        assert [await store.getsize_prefix(prefix) for prefix in ("a", "a/", "", "none")] == [13, 13, 20, 0]
        assert [await store.is_empty(prefix) for prefix in ("", "a", "a/c/", "none")] == [False, False, False, True]


async def test_listing_methods_answer(filled: Filled) -> None:
    """Each method that lists gives every name once, relative to where zarr says."""
    async with ManagedFSSpecStore(filled.url) as store:
        assert await collect(store.list()) == sorted(CONTENT)
        assert await collect(store.list_prefix("")) == sorted(CONTENT)
        assert await collect(store.list_prefix("a/")) == ["a/c/0", "a/c/1", "a/zarr.json"]
        assert await collect(store.list_dir("")) == ["a", "ab", "zarr.json"]
        assert await collect(store.list_dir("a")) == await collect(store.list_dir("a/")) == ["c", "zarr.json"]
        assert await collect(store.list_dir("none")) == await collect(store.list_prefix("none/")) == []


@pytest.mark.skipif(not hasattr(Store, "get_ranges"), reason="the installed zarr's Store has no get_ranges")
async def test_get_ranges_answers(filled: Filled) -> None:
    """Many ranges of one object come back with their positions, and a missing key is FileNotFoundError."""
    requests = [RangeByteRequest(0, 2), RangeByteRequest(8, 10), None, SuffixByteRequest(1), OffsetByteRequest(9)]
    async with ManagedFSSpecStore(filled.url) as store:
        groups = [group async for group in store.get_ranges("a/c/0", requests, prototype=PROTOTYPE)]
        parts = {position: part.to_bytes() for group in groups for position, part in group}
        assert parts == {0: b"01", 1: b"89", 2: b"0123456789", 3: b"9", 4: b"9"}
        with pytest.raises(BaseExceptionGroup) as caught:
            _ = [group async for group in store.get_ranges("a/c/9", requests, prototype=PROTOTYPE)]
        assert caught.group_contains(FileNotFoundError)


async def test_writing_methods_answer(filled: Filled) -> None:
    """`set` writes over what is there, `set_if_not_exists` does not, and only a Buffer is taken."""
    async with ManagedFSSpecStore(filled.url) as store:
        await store.set("zarr.json", cpu.Buffer.from_bytes(b"new"))
        await store.set_if_not_exists("zarr.json", cpu.Buffer.from_bytes(b"newer"))
        await store.set_if_not_exists("b/c/0", cpu.Buffer.from_bytes(b"b"))
        assert [filled.read(key) for key in ("zarr.json", "b/c/0")] == [b"new", b"b"]
        with pytest.raises(TypeError, match="must be a Buffer"):
            await store.set("zarr.json", b"bytes")  # type: ignore[arg-type]
        assert filled.read("zarr.json") == b"new"


@pytest.mark.parametrize("filled", ["memory"], indirect=True)
async def test_deleting_methods_answer(filled: Filled) -> None:
    """`delete` takes one key, `delete_dir` a folder and no more, `clear` all; what is not there is no error."""
    async with ManagedFSSpecStore(filled.url) as store:
        await store.delete("a/c/0")
        await store.delete("a/c/0")
        assert await collect(store.list_prefix("a/")) == ["a/c/1", "a/zarr.json"]
        await store.delete_dir("a")
        await store.delete_dir("a")
        assert await collect(store.list()) == ["ab/zarr.json", "zarr.json"]
        await store.clear()
        await store.clear()
        assert await collect(store.list()) == []


async def test_open_makes_a_store(filled: Filled) -> None:
    """`open` gives a store that is open and usable, and refuses to be opened again."""
    store = await ManagedFSSpecStore.open(filled.url, read_only=True)
    async with store:
        assert (store._is_open, store.read_only, store.closed) == (True, True, False)
        with pytest.raises(ValueError, match="already open"):
            await store._open()
        assert await store.exists("zarr.json")


async def test_read_only_handle_is_one_with_its_store(filled: Filled) -> None:
    """`with_read_only` gives a handle on the same sessions; closing it closes it alone, closing the store ends it."""
    async with ManagedFSSpecStore(filled.url) as store:
        first, second = store.with_read_only(True), store.with_read_only(True)
        assert (first.read_only, store.read_only, first == second, first == store) == (True, False, True, False)
        assert await first.exists("zarr.json")
        assert await store.exists("zarr.json")
        assert store.statistics().opened == 1
        await first.aclose()
        assert (first.closed, second.closed, store.closed) == (True, False, False)
        assert await second.exists("zarr.json")
    with pytest.raises(StoreClosedError):
        await second.exists("zarr.json")


async def test_stores_compare_by_recipe(filled: Filled) -> None:
    """Equal are stores with the same URL, options, mode and exceptions; none has a hash, like zarr's own."""
    options = {"use_listings_cache": False}
    async with ManagedFSSpecStore(filled.url, storage_options=options) as store:
        await store.exists("zarr.json")  # an open session makes no difference
        assert store == ManagedFSSpecStore(filled.url, storage_options=dict(options))
        others = [
            ManagedFSSpecStore(filled.url),
            ManagedFSSpecStore(f"{filled.url}/a", storage_options=options),
            ManagedFSSpecStore(filled.url, storage_options=options, read_only=True),
            ManagedFSSpecStore(filled.url, storage_options=options, allowed_exceptions=(KeyError,)),
            MemoryStore(),
            filled.url,
        ]
        assert [store == other for other in others] == [False] * len(others)
        with pytest.raises(TypeError, match="unhashable"):
            hash(store)


async def test_repr_and_str_tell_without_opening(filled: Filled) -> None:
    """`repr` shows the URL and the state at each moment, `str` the URL alone; neither opens a session."""
    store = ManagedFSSpecStore(filled.url, read_only=True)
    assert str(store) == filled.url
    assert repr(store) == f"<ManagedStore {filled.url!r} new read-only loops=0 handles=1>"
    async with store:
        await store.exists("zarr.json")
        assert repr(store) == f"<ManagedStore {filled.url!r} open read-only loops=1 handles=1>"
    assert repr(store) == f"<ManagedStore {filled.url!r} closed read-only loops=0 handles=0>"
    assert str(store) == filled.url


async def test_pickled_copy_lives_by_itself(filled: Filled) -> None:
    """A copy is equal, has sessions of its own, outlives the original, and is closed if the original was."""
    async with ManagedFSSpecStore(filled.url, read_only=True, close_timeout=3.0) as store:
        await store.exists("zarr.json")
        copy = pickle.loads(pickle.dumps(store))
        assert (copy == store, copy.read_only, copy.close_timeout) == (True, True, 3.0)
        assert copy.statistics().opened == 0
    async with copy:
        assert (await copy.get("a/c/0", PROTOTYPE)).to_bytes() == CONTENT["a/c/0"]
    assert pickle.loads(pickle.dumps(store)).closed


USES: dict[str, Callable[[ManagedFSSpecStore], Awaitable[Any]]] = {
    "get": lambda store: store.get("zarr.json", PROTOTYPE),
    "get_partial_values": lambda store: store.get_partial_values(PROTOTYPE, [("zarr.json", None)]),
    "exists": lambda store: store.exists("zarr.json"),
    "getsize": lambda store: store.getsize("zarr.json"),
    "getsize_prefix": lambda store: store.getsize_prefix("a"),
    "is_empty": lambda store: store.is_empty(""),
    "list": lambda store: anext(store.list()),
    "list_prefix": lambda store: anext(store.list_prefix("a/")),
    "list_dir": lambda store: anext(store.list_dir("a")),
    "set": lambda store: store.set("zarr.json", cpu.Buffer.from_bytes(b"new")),
    "set_if_not_exists": lambda store: store.set_if_not_exists("new", cpu.Buffer.from_bytes(b"new")),
    "delete": lambda store: store.delete("zarr.json"),
    "delete_dir": lambda store: store.delete_dir("a"),
    "clear": lambda store: store.clear(),
}
if hasattr(Store, "get_ranges"):
    USES["get_ranges"] = lambda store: anext(store.get_ranges("zarr.json", [None], prototype=PROTOTYPE))


def test_every_use_is_among_those_tried_on_a_closed_store() -> None:
    """A method that a later zarr adds is tried on a closed store too, or is known to do no I/O."""
    methods = {name for name in public_names() if inspect.isfunction(inspect.getattr_static(Store, name))}
    assert methods == {*USES} | (methods & {"close", "with_read_only", "get_ranges_sync", "set_partial_values"})


@pytest.mark.parametrize("how", ["used before", "never used", "handle alone"])
@pytest.mark.parametrize("name", USES)
async def test_closed_store_refuses(filled: Filled, name: str, how: str) -> None:
    """After the close each use raises StoreClosedError, async generators at their first step; nothing opens again."""
    async with ManagedFSSpecStore(filled.url) as store:
        if how != "never used":
            await store.exists("zarr.json")
        handle = store.with_read_only(False)
        await (handle if how == "handle alone" else store).aclose()
        for closed in [handle] if how == "handle alone" else [store, handle]:
            with pytest.raises(StoreClosedError, match="was closed"):
                await USES[name](closed)
        statistics = store.statistics()
        assert statistics.opened == (0 if how == "never used" else 1)
        assert (statistics.loops, store.closed) == ((1, False) if how == "handle alone" else (0, True))
    assert {key: filled.read(key) for key in CONTENT} == CONTENT


@pytest.mark.parametrize("name", ["set", "set_if_not_exists", "delete", "delete_dir", "clear"])
@pytest.mark.parametrize("filled", ["memory"], indirect=True)
async def test_closed_read_only_store_says_that_it_is_closed(filled: Filled, name: str) -> None:
    """That the store is closed comes before that it is read-only: the remedy for the latter would be in vain."""
    async with ManagedFSSpecStore(filled.url, read_only=True) as store:
        pass
    with pytest.raises(StoreClosedError):
        await USES[name](store)


async def test_closed_store_gives_no_way_back(filled: Filled) -> None:
    """Neither entering, opening, deriving a handle nor asking for the filesystem opens a closed store again."""
    store = ManagedFSSpecStore(filled.url)
    await store.aclose()
    await store.aclose()
    store.close()
    for name in ("_open", "_ensure_open", "__aenter__"):
        with pytest.raises(StoreClosedError):
            await getattr(store, name)()
    for use in (store.__enter__, store.with_read_only, lambda: store.fs, lambda: store.path):
        with pytest.raises(StoreClosedError):
            use()
    assert store.statistics().opened == 0


@pytest.mark.parametrize("name", ["set", "set_if_not_exists", "delete", "delete_dir", "clear"])
@pytest.mark.parametrize("key", ["new", "zarr.json"])
@pytest.mark.parametrize("is_derived", [False, True])
@pytest.mark.parametrize("filled", ["memory"], indirect=True)
async def test_read_only_store_refuses_writes(filled: Filled, name: str, key: str, is_derived: bool) -> None:
    """Each write to a read-only store or handle is an error that says so, and the data stay as they were."""
    arguments = {"delete": (key,), "delete_dir": ("a",), "clear": ()}.get(name, (key, cpu.Buffer.from_bytes(b"x")))
    async with ManagedFSSpecStore(filled.url, read_only=not is_derived) as store:
        handle = store.with_read_only(True) if is_derived else store
        with pytest.raises(ValueError, match="read-only"):
            await getattr(handle, name)(*arguments)
        assert await collect(handle.list()) == sorted(CONTENT)
    assert {each: filled.read(each) for each in CONTENT} == CONTENT
