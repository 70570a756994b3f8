"""Which stores of a pool share a session: those whose options have equal values, by type too, whatever their repr."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from managed_store import StorePool
from tests.places import Place

URL = "http://127.0.0.1:1/a.zarr"


@dataclass(frozen=True)
class Masked:
    """A secret as libraries have them: it shows itself to nobody, but is compared by its value."""

    secret: str

    def __repr__(self) -> str:
        return "Masked('***')"


class Live:
    """An object that is nothing but itself, such as a credential."""

    def __repr__(self) -> str:
        return "Live()"


class Changing:
    """One that compares by a value which may change, so that it cannot be hashed."""

    value = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Changing) and self.value == other.value

    def __repr__(self) -> str:
        return "Changing()"

    __hash__ = None  # type: ignore[assignment]


class Failing:
    """One whose comparison fails, as an array's does."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of it is ambiguous")

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "Failing()"


LIVES = [Live(), Live(), Changing(), Failing(), fsspec.filesystem("memory")]
LEAVES: st.SearchStrategy[Any] = (
    st.sampled_from([0, 1, 2, True, False, 1.0, 0.0, "1", b"1", "", None, "True", Masked("a"), Masked("b"), *LIVES])
    | st.text(max_size=3)
    | st.binary(max_size=2)
)
HASHABLE = st.sampled_from([0, 1, True, 1.0, "1", b"1", None, Masked("a"), Masked("b")])
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(HASHABLE, values, max_size=3)
        | st.lists(values, max_size=2).map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
    ),
    max_leaves=6,
)
# Names that the filesystem knows nothing of: it passes them on to requests, of which there are none here.
OPTIONS = st.dictionaries(st.sampled_from(["x_token", "x_level", "x_headers"]), VALUES, max_size=3)


def meaning(value: Any) -> Any:
    """What an option says, in a form that can be compared: each value with its type, each live object by identity."""
    if isinstance(value, dict):
        return dict, frozenset((meaning(name), meaning(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(meaning, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(meaning, value))
    if isinstance(value, Masked):
        return Masked, value.secret
    if isinstance(value, str | bytes | int | float | None):
        return type(value), value
    return type(value), id(value)


def rebuilt(value: Any) -> Any:
    """The same in containers, strings and secrets of their own, the other way round."""
    if isinstance(value, dict):
        return {rebuilt(name): rebuilt(value[name]) for name in reversed(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(rebuilt, value))
    if isinstance(value, Masked):
        return Masked(value.secret)
    return value[:1] + value[1:] if isinstance(value, str | bytes) else value


@settings(max_examples=100, deadline=None)
@given(OPTIONS, OPTIONS, st.data())
def test_stores_share_if_and_only_if_their_options_say_the_same(
    left: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    right = data.draw(st.sampled_from([rebuilt(left), other, {**left, **other}]))
    with StorePool() as pool:
        first = pool.store(URL, storage_options=left)
        second = pool.store(f"{URL}/elsewhere", storage_options=right)
        assert (first.fs is second.fs) == (meaning(left) == meaning(right))
        assert pool.statistics().filesystems == 1 + (meaning(left) != meaning(right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Masked("one"), Masked("two")),
        ({"deep": [Masked("one")]}, {"deep": [Masked("two")]}),
        (True, 1),
        (1, 1.0),
        ([1], (1,)),
        ([1], [True]),
        ({1: "a"}, {True: "a"}),
        ({1}, {True}),
        (Live(), Live()),
        (Changing(), Changing()),
        (Failing(), Failing()),
        (b"1", "1"),
        (None, ""),
    ],
    ids=repr,
)
def test_values_that_are_told_apart(left: Any, right: Any) -> None:
    """However alike they look. Each by itself is shared by those who give it again."""
    with StorePool() as pool:
        stores = [pool.store(URL, storage_options={"x_token": value}) for value in (left, right)]
        again = [pool.store(URL, storage_options={"x_token": value}) for value in (left, right)]
        assert stores == again
        assert stores[0] != stores[1]
        assert stores[0].fs is not stores[1].fs
        assert [store.fs for store in again] == [store.fs for store in stores]
        assert pool.statistics().filesystems == 2


def test_filesystems_are_told_apart_although_fsspec_does_not() -> None:
    """Two filesystems that were handed in, whose secrets differ: fsspec finds them equal, by what they look like."""
    inner = [fsspec.filesystem("memory", x=Masked(secret), skip_instance_cache=True) for secret in ("one", "two")]
    assert inner[0] == inner[1]
    with StorePool() as pool:
        stores = [pool.store("simplecache://a.zarr", storage_options={"fs": each}) for each in (*inner, inner[0])]
        assert stores[0].fs is not stores[1].fs
        assert stores[0].fs is stores[2].fs


def test_an_option_that_is_changed_afterwards_stays_what_it_was() -> None:
    """Containers are copied, so that what a session was opened with can be found again, and nothing else."""
    headers = {"headers": {"Authorization": "one"}}
    with StorePool(storage_options={"client_kwargs": headers}) as pool:
        before = pool.store(URL)
        original = copy.deepcopy(headers)
        _ = before.fs
        headers["headers"]["Authorization"] = "two"
        assert pool.store(URL).fs is before.fs
        assert pool.store(URL, storage_options={"client_kwargs": original}).fs is before.fs
        assert pool.store(URL, storage_options={"client_kwargs": headers}).fs is not before.fs


@pytest.mark.parametrize("container", [CIMultiDict({"Authorization": "one"}), bytearray(b"one")])
def test_a_container_of_an_unknown_kind_is_never_shared(container: Any) -> None:
    """It may say something else by the next time that it is handed in, as the same object."""
    with StorePool() as pool:
        before = pool.store(URL, storage_options={"client_kwargs": {"own": container}})
        container.clear()
        after = pool.store(URL, storage_options={"client_kwargs": {"own": container}})
        assert before != after
        assert len(before._sessions.recipe.options["client_kwargs"]["own"]) > 0


@pytest.mark.parametrize("mapping", [OrderedDict, lambda headers: defaultdict(str, headers), MappingProxyType])
def test_another_kind_of_mapping_is_copied_too(mapping: Callable[[dict[str, str]], Any]) -> None:
    """A secret that is rotated in it: the session that was opened with the old one is not for the new one."""
    headers = {"Authorization": "one"}
    given = mapping(headers)
    with StorePool() as pool:
        before = pool.store(URL, storage_options={"client_kwargs": {"headers": given}})
        original = {"Authorization": "one"}
        _ = before.fs
        (headers if isinstance(given, MappingProxyType) else given)["Authorization"] = "two"
        assert pool.store(URL, storage_options={"client_kwargs": {"headers": original}}).fs is before.fs
        assert pool.store(URL, storage_options={"client_kwargs": {"headers": given}}).fs is not before.fs
        two = pool.store(URL, storage_options={"client_kwargs": {"headers": {"Authorization": "two"}}})
        assert two.fs is not before.fs


def test_options_of_a_store_are_laid_over_those_of_the_pool() -> None:
    """Name by name: the store's own value wins, and it is the result that counts."""
    with StorePool(storage_options={"x_a": 1, "x_b": 1}) as pool:
        plain = pool.store(URL)
        assert pool.store(URL, storage_options={"x_b": 1}).fs is plain.fs
        assert pool.store(URL, storage_options={"x_b": 2}).fs is not plain.fs
        assert plain.fs.kwargs == {"x_a": 1, "x_b": 1}
        assert pool.store(URL, storage_options={"x_b": 2}).fs.kwargs == {"x_a": 1, "x_b": 2}
        with StorePool(storage_options={"x_a": 1, "x_b": 1}) as other:
            assert other.store(URL).fs is not plain.fs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("http://127.0.0.1:1/a", "https://127.0.0.1:2/b?token=x"),
        ("memory://a", "memory://b/c"),
        ("simplecache::memory://a", "simplecache::memory://b"),
        ("/tmp/a", "file:///tmp/b"),
        ("ftp://user:secret@127.0.0.1/a", "ftp://user:secret@127.0.0.1/b"),
    ],
)
def test_urls_that_share_a_filesystem(left: str, right: str) -> None:
    """One filesystem reaches both. (No FTP server is asked here: the parts of the recipes are equal.)"""
    with StorePool() as pool:
        stores = [pool.store(url) for url in (left, right)]
        if not left.startswith("ftp"):
            assert stores[0].fs is stores[1].fs
        owners = [store._sessions._found_owner() for store in stores]  # type: ignore[union-attr]
        assert owners[0] is owners[1]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("http://127.0.0.1:1/a", "memory://a"),
        ("memory://a", "simplecache::memory://a"),
        ("simplecache::memory://a", "filecache::memory://a"),
        ("ftp://user:one@127.0.0.1/a", "ftp://user:two@127.0.0.1/a"),
        ("ftp://127.0.0.1/a", "ftp://127.0.0.2/a"),
        ("simplecache::ftp://user:one@127.0.0.1/a", "simplecache::ftp://user:two@127.0.0.1/a"),
        ("zip::memory://a.zip", "zip::memory://b.zip"),
        ("dir://a::memory://b", "dir://c::memory://b"),
    ],
)
def test_urls_that_do_not(left: str, right: str) -> None:
    """Another kind, another host or user in the URL, another archive: each has its own. The same URL twice shares."""
    with StorePool() as pool:
        stores = [pool.store(url) for url in (left, right, left)]
        owners = [store._sessions._found_owner() for store in stores]  # type: ignore[union-attr]
        assert owners[0] is not owners[1]
        assert owners[0] is owners[2]


def test_the_hosts_of_a_cache_that_is_shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Options at both levels of a chain count."""
    folders = [str(tmp_path_factory.mktemp("cache")) for _ in range(2)]
    place = Place("simplecache::memory://a")
    with StorePool() as pool:
        stores = [
            pool.store(place.url, storage_options={"cache_storage": folder, "memory": {"x": level}})
            for folder in folders
            for level in (1, 2)
        ]
        assert len({id(store.fs) for store in stores}) == 4
        again = pool.store("simplecache::memory://b", storage_options={"cache_storage": folders[1], "memory": {"x": 2}})
        assert again.fs is stores[3].fs
