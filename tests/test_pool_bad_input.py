"""Bad input to a pool gets one clear error that names the argument, what was given and what would work."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import re
from typing import Any

import pytest
import zarr
from zarr.core.sync import sync

from managed_store import (
    ArgumentError,
    ArgumentTypeError,
    StoreClosedError,
    StoreOpenError,
    StorePool,
    UnknownProtocolError,
)


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("storage_options", "anon", ArgumentTypeError, "storage_options must be a mapping .* got str"),
        ("storage_options", {1: 2}, ArgumentTypeError, "strings as keys, such as 'anon'; got a key of type int"),
        ("storage_options", {"asynchronous": False}, ArgumentError, r"\['asynchronous'\] must be True or absent"),
        ("storage_options", {"loop": object()}, ArgumentError, r"\['loop'\] must be absent"),
        ("close_timeout", "5", ArgumentTypeError, "close_timeout must be a number of seconds; got str"),
        ("close_timeout", -1, ArgumentError, "close_timeout must be a finite number of seconds, 0 or more; got -1"),
        ("close_timeout", math.inf, ArgumentError, "close_timeout must be a finite number of seconds"),
        ("max_idle", None, ArgumentTypeError, "max_idle must be a number of seconds; got NoneType"),
        ("max_idle", True, ArgumentTypeError, "max_idle must be a number of seconds; got bool"),
        ("max_idle", 0, ArgumentError, "max_idle must be a number of seconds, or math.inf, more than 0; got 0"),
        ("max_idle", -math.inf, ArgumentError, "max_idle must be .*, more than 0; got -inf"),
        ("max_idle", math.nan, ArgumentError, "max_idle must be .*, more than 0; got nan"),
        ("max_filesystems", 0, ArgumentError, "max_filesystems must be 1 or more; got 0"),
        ("max_filesystems", 1.0, ArgumentTypeError, "max_filesystems must be a whole number; got float"),
        ("max_filesystems", True, ArgumentTypeError, "max_filesystems must be a whole number; got bool"),
    ],
)
def test_arguments_of_the_pool(argument: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StorePool(**{argument: value})


def test_limits_at_their_bounds() -> None:
    """What the messages say would work does work."""
    with StorePool(
        close_timeout=0, max_idle=math.inf, max_filesystems=1, storage_options={"asynchronous": True}
    ) as pool:
        assert not sync(pool.store("memory://a").exists("zarr.json"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"url": 3}, ArgumentTypeError, "url must be a string .* got int"),
        ({"url": " "}, ArgumentError, "url must name a store"),
        ({"url": "s4://b"}, UnknownProtocolError, "unknown protocol 's4'"),
        ({"url": "zip://a"}, ArgumentError, "url names no filesystem for 'zip' to be laid over"),
        ({"storage_options": [1]}, ArgumentTypeError, "storage_options must be a mapping .* got list"),
        ({"storage_options": {"loop": 1}}, ArgumentError, r"storage_options\['loop'\] must be absent"),
        ({"storage_options": {"skip_instance_cache": False}}, ArgumentError, "must be True or absent"),
        ({"read_only": 1}, ArgumentTypeError, "read_only must be True or False; got int"),
        ({"allowed_exceptions": KeyError}, ArgumentTypeError, "allowed_exceptions must be a tuple .* got type"),
    ],
)
def test_arguments_of_a_store(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """As for a store of its own; the pool is none the worse for it."""
    with StorePool() as pool:
        with pytest.raises(error, match=message):
            pool.store(**{"url": "memory://a", **arguments})
        assert pool.statistics().stores == 0
        assert not sync(pool.store("memory://a").exists("zarr.json"))


def test_options_that_do_not_fit_every_store() -> None:
    """The pool's options reach each of its stores, so that they must fit all; the message says where they belong."""
    with StorePool(storage_options={"anon": True}) as pool:
        with pytest.raises(ArgumentError, match=r"storage_options\['anon'\] is no option of 'simplecache'"):
            pool.store("simplecache::memory://a")


def test_what_the_url_and_the_options_say_differently() -> None:
    """Found at first use, with the backend: an error that zarr does not take for a group that is not there."""
    with StorePool(storage_options={"host": "elsewhere"}) as pool:
        store = pool.store("ftp://127.0.0.1:1/a.zarr")
        for _ in range(2):
            with pytest.raises(StoreOpenError, match=r"storage_options\['host'\] and the url say different things"):
                zarr.open_group(store, mode="r")
        with pytest.raises(StoreOpenError, match=r"storage_options\['host'\]"):
            _ = store.fs
        assert pool.statistics().opened == 0


def test_what_only_the_filesystem_can_reject() -> None:
    """Each store with those options is told, each time; the others work."""
    with StorePool() as pool:
        wrong = [
            pool.store(f"s3://bucket/{name}", storage_options={"key": "a", "username": "b"}) for name in ("a", "b")
        ]
        for store in wrong * 2:
            message = (
                rf"The filesystem of '{store}' could not be built: KeyError"  # not that of the shared one, 's3://'
            )
            with pytest.raises(StoreOpenError, match=message) as caught:
                zarr.open_group(store, mode="r")
            assert isinstance(caught.value.__cause__, KeyError)
            with pytest.raises(StoreOpenError, match=message):
                _ = store.fs
        assert not sync(pool.store("memory://a").exists("zarr.json"))
        assert pool.statistics().filesystems == 1


async def test_a_closed_pool() -> None:
    """Nothing can be made of it or entered any more; closing it again is no error."""
    pool = StorePool()
    await pool.aclose()
    message = re.escape("This StorePool was closed. Closing is final: make a new StorePool, or move this use inside")
    with pytest.raises(StoreClosedError, match=message):
        pool.store("memory://a")
    with pytest.raises(StoreClosedError, match=message), pool:
        pass
    with pytest.raises(StoreClosedError, match=message):
        async with pool:
            pass
    assert pool.closed
    pool.close()
    await pool.aclose()


def test_a_pool_cannot_be_copied() -> None:
    """A copy would own connections of another; what can be sent to another process are its stores."""
    with StorePool() as pool:
        for step in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=r"cannot be pickled\. Its stores can"):
                step(pool)


def test_nothing_that_a_pool_says_shows_a_secret() -> None:
    """Neither repr nor errors: options, user info and query strings stay in."""
    url = "http://user:hunter2@127.0.0.1:1/a.zarr?sig=hunter3"
    said = []
    pool = StorePool(storage_options={"headers": {"Authorization": "hunter4"}}, close_timeout=0.1)
    store = pool.store(url, storage_options={"x_token": "hunter5"})
    _ = store.fs
    said += [repr(pool), repr(store), repr(pool.statistics()), str(store), pool._pool.name]
    pool.close()
    for step in (lambda: pool.store(url), lambda: sync(store.exists("a")), lambda: store.fs):
        with pytest.raises(StoreClosedError) as caught:
            step()
        said.append(str(caught.value))
    assert "hunter" not in " ".join(said)
    asyncio.run(pool.aclose())
