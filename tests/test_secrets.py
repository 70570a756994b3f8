"""Secrets stay in, as a property: over URLs and options of every shape, nothing that this package says shows one.

Each secret has the same mark in each of its parts, so that a part that is shown is found as well as the whole.
"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import pickle
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

import fsspec
import pytest
import requests
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import (
    Closer,
    ManagedStore,
    ManagedStoreError,
    StoreCloseError,
    StoreOpenError,
    StorePool,
    register_closer,
)
from managed_store._closers import _registry as registry
from managed_store.cli import main as command

PROTOTYPE = default_buffer_prototype()
MARK = "zqx"

# Secrets

WORDS = st.text(alphabet="abcXYZ019", max_size=5).map(lambda text: MARK + text)


def secrets(separators: str) -> st.SearchStrategy[str]:
    """Words with the mark in each, between any of these characters."""
    between = st.sampled_from(separators)
    rest = st.lists(st.tuples(between, WORDS).map("".join), max_size=2).map("".join)
    return st.tuples(WORDS, rest).map("".join)


IN_USER_INFO = secrets("-_.~!$&'()*+,;=:@/?#%|^ ")
IN_QUERIES = secrets("-_.~!$&'()*+,;=:/?#%|^ ")  # those with more in them have tests of their own below
IN_OPTIONS = secrets("-_.~!$&'()*+,;=:@/?#%|^ \\\"\n\t{}[]é")


@st.composite
def urls(draw: st.DrawFn, protocol: str = "https", host: str = "127.0.0.1:1") -> str:
    """A URL with a secret in one or more of its user, password, query string and fragment."""
    user = draw(st.sampled_from(["", "user:{}@", "{}@", "{}:@", ":{}@"]))
    query = draw(st.sampled_from(["", "?{}", "?token={}", "?a=1&sig={}&b=2"] if user else ["?{}", "?sig={}"]))
    fragment = draw(st.sampled_from(["", "#{}", "#access_token={}"]))
    user = user.replace("{}", draw(IN_USER_INFO))
    return f"{protocol}://{user}{host}/a.zarr{query}{fragment}".replace("{}", draw(IN_QUERIES))


@st.composite
def chains(draw: st.DrawFn) -> str:
    """The same behind something that is laid over it, which has a path of its own or has not."""
    outer = draw(st.sampled_from(["", "simplecache::", "zip://::", "zip://inner/a.zarr::", "dir://a::simplecache::"]))
    return outer + draw(urls())


class Credential:
    """A live object of the user's, whose repr is careless, and which is no good in a pickle."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Credential({self.secret!r})"

    __str__ = __repr__


LEAVES = IN_OPTIONS | IN_OPTIONS.map(str.encode) | IN_OPTIONS.map(Credential)
NAMES = st.sampled_from(["key", "secret", "token", "headers", "client_kwargs", "auth", "Authorization"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda values: (
        st.lists(values, max_size=2) | st.dictionaries(NAMES, values, max_size=2) | st.tuples(values, values)
    ),
    max_leaves=4,
)
OPTIONS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)

# What is said


class Said:
    """All that the package says in a block: errors that it makes, warnings, log records; and what is added."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, *things: object) -> None:
        """Note what a thing looks like."""
        for thing in things:
            self.texts += [repr(thing), str(thing)]

    def add_error(self, error: BaseException | None) -> None:
        """Note an error and those that led to it. A backend's own, which is the cause of ours, is its own affair."""
        while error is not None:
            self.texts += getattr(error, "__notes__", [])
            if isinstance(error, ManagedStoreError):
                self.add(error, error.args, vars(error))
                self.texts += traceback.format_exception_only(error)
                with suppress(TypeError):
                    self.texts.append(repr(pickle.loads(pickle.dumps(error))))
            error = error.__cause__ or error.__context__

    def check(self) -> None:
        """None of it has the mark of a secret."""
        assert [text for text in self.texts if MARK in text] == []


class _Collecting(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self._texts += [self.format(record), repr(record.args), repr(record.msg)]


@contextmanager
def listening() -> Iterator[Said]:
    """Collect what is said in the block, by way of warnings, of the log and of errors that leave it; then check it."""
    said = Said()
    logger = logging.getLogger("managed_store")
    handler, level = _Collecting(said.texts), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
        said.texts += [warnings.formatwarning(each.message, each.category, each.filename, 1, "") for each in caught]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    said.check()


thorough = settings(max_examples=40, deadline=None)


# Filesystems of somebody else that refuse and fail, with careless messages


class RefusingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """It refuses its options, and repeats them."""

    protocol = "refusing"

    def __init__(self, *args: Any, **options: Any) -> None:
        raise ValueError(f"these options are no good: {options}")


class FailingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """It takes every option, holds nothing, and does not let itself be closed."""

    protocol = "failing"

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        raise FileNotFoundError(path)


class FailingCloser(Closer):
    """It repeats the options in what it raises."""

    async def close(self) -> None:
        raise OSError(f"cannot close with {self.filesystem.storage_options}")

    def still_open(self) -> list[str]:
        return ["channel"]


class FailingSession(requests.Session):
    """A client that a filesystem holds, which says its token when it cannot be closed."""

    token = ""

    def close(self) -> None:
        raise OSError(f"cannot close the session of {self.token}")


class UnknownFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """One that nobody has registered a closer for."""

    protocol = "unknown"

    def __init__(self, token: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.client = FailingSession()
        self.client.token = token


@pytest.fixture(scope="module", autouse=True)
def filesystems_of_somebody_else() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_registered", dict(registry._registered))
        for cls in (RefusingFileSystem, FailingFileSystem, UnknownFileSystem):
            fsspec.register_implementation(str(cls.protocol), cls, clobber=True)
        register_closer(FailingFileSystem, FailingCloser)
        yield
        for cls in (RefusingFileSystem, FailingFileSystem, UnknownFileSystem):
            _registry.pop(str(cls.protocol))


# The property, at each moment of a store's life


@thorough
@given(url=chains(), secret=IN_OPTIONS, options=OPTIONS)
def test_what_the_constructor_refuses(url: str, secret: str, options: dict[str, Any]) -> None:
    """Whatever is wrong with an argument, the error names it, and shows no value."""
    wrong: list[dict[str, Any]] = [
        {"url": f"nosuch{url}"},
        {"url": f"{url}::{url}"},
        {"url": url.encode()},
        {"url": "zip://a.zarr", "storage_options": options},
        {"storage_options": secret},
        {"storage_options": [secret]},
        {"storage_options": {1: secret}},
        {"storage_options": {"asynchronous": secret}},
        {"storage_options": {"skip_instance_cache": options}},
        {"storage_options": {"loop": Credential(secret)}},
        {"storage_options": {"s3": options}},
        {"storage_options": {"https": secret, **options}},
        {"storage_options": {"https": {"loop": secret, "asynchronous": secret}}},
        {"storage_options": {"simplecache": {"asynchronous": Credential(secret), **options}}},
        {"read_only": secret},
        {"close_timeout": secret},
        {"close_timeout": Credential(secret)},
        {"allowed_exceptions": secret},
        {"allowed_exceptions": (Credential(secret),)},
    ]
    with listening() as said:
        for arguments in wrong:
            try:
                said.add(ManagedStore(**{"url": url, "storage_options": options, **arguments}))
            except ManagedStoreError as error:
                said.add_error(error)


@thorough
@given(url=chains(), options=OPTIONS)
def test_a_store_that_was_never_used(url: str, options: dict[str, Any]) -> None:
    """Its looks, its handles' and copies', its statistics and its refusals, and a pickle that fails."""
    protocol = url.partition(":")[0]
    levels = {"https": options} if protocol != "https" else options
    with listening() as said:
        store = ManagedStore(url, storage_options=levels)
        derived = store.with_read_only(True)
        said.add(store, derived, store.statistics(), store._sessions.recipe, store._sessions)
        try:
            said.add(pickle.loads(pickle.dumps(store)))
        except (TypeError, pickle.PicklingError) as error:  # the lock of a credential
            said.add(error, getattr(error, "__notes__", []))
        store.close()
        said.add(store, derived, store.statistics())
        for use in (store.with_read_only, store.__enter__, lambda: store.fs, lambda: sync(derived.exists("a"))):
            try:
                use()
            except ManagedStoreError as error:
                said.add_error(error)
        assert len(said.texts) > 20


@thorough
@given(url=chains(), options=OPTIONS)
def test_a_pool_and_its_stores(url: str, options: dict[str, Any]) -> None:
    """What they look like, what is below them, their refusals, and the pickle of a pool, which fails."""
    protocol = url.partition(":")[0]
    levels = {"https": options} if protocol != "https" else options
    with listening() as said:
        pool = StorePool(storage_options=levels)
        store = pool.store(url)
        lease = store._sessions
        try:
            lease._found_owner()  # type: ignore[union-attr]
        except ManagedStoreError as error:
            said.add_error(error)
        said.add(pool, pool.statistics(), store, store.statistics(), lease, pool._pool, pool._pool.name)
        said.add(*pool._pool._all_owners(), *(owner.recipe for owner in pool._pool._all_owners()))
        with pytest.raises(TypeError) as caught:
            pickle.dumps(pool)
        said.add(caught.value)
        pool.close()
        said.add(pool, pool.statistics(), store)
        for use in (lambda: pool.store(url), pool.__enter__, lambda: store.fs, lambda: sync(store.exists("a"))):
            with pytest.raises(ManagedStoreError) as refused:
                use()
            said.add_error(refused.value)


@thorough
@given(url=urls(), secret=IN_OPTIONS.filter(str.isprintable), forgotten=st.booleans())
def test_a_store_with_an_open_session(url: str, secret: str, forgotten: bool) -> None:
    """Opened, and left by an exception or forgotten: the warning, the log and the notes keep it in."""
    options = {"client_kwargs": {"headers": {"Authorization": secret}}, "token": Credential(secret)}
    with listening() as said:
        store = ManagedStore(url, storage_options=options)
        assert store.fs is not None
        said.add(store, store.statistics())
        if forgotten:
            del store
            gc.collect(0)
            assert sync(asyncio.sleep(0.001)) is None  # the session is closed on zarr's loop
        else:
            with suppress(ZeroDivisionError), store:
                try:
                    _ = 1 / 0
                finally:
                    said.add(store)
            said.add(store, store.statistics())
    assert any("never closed" in text for text in said.texts) == forgotten


@thorough
@given(url=urls("refusing"), options=OPTIONS, chained=st.booleans())
def test_a_filesystem_that_refuses_its_options(url: str, options: dict[str, Any], chained: bool) -> None:
    """StoreOpenError names the store and the kind of the cause; what the filesystem said stays in the cause."""
    with listening() as said:
        url, options = (f"dir://a::{url}", {"refusing": options}) if chained else (url, options)
        with ManagedStore(url, storage_options=options) as store:
            for use in (lambda: sync(store.exists("a")), lambda: store.fs, lambda: store.path):
                with pytest.raises(StoreOpenError) as caught:
                    use()
                assert "no good" in str(caught.value.__cause__)
                said.add_error(caught.value)


@thorough
@given(url=urls("failing"), options=OPTIONS)
def test_a_close_that_fails(url: str, options: dict[str, Any]) -> None:
    """Neither StoreCloseError, nor the note on the exception of the body, nor the log repeats what the closer said."""
    with listening() as said:
        for error in (None, ValueError("of the body")):
            store = ManagedStore(url, storage_options=options)
            with pytest.raises(ValueError if error else StoreCloseError) as caught, store:
                sync(store.exists("a"))
                if error is not None:
                    raise error
            said.add_error(caught.value)
            assert (error is None) or "channel" in error.__notes__[0]
            said.add(store, store.statistics())


@thorough
@given(secret=IN_OPTIONS)
def test_a_client_that_cannot_be_closed(secret: str) -> None:
    """What an unknown filesystem's client raises, when it is closed and when it is cut off, is not logged."""
    with listening() as said:
        store = ManagedStore("unknown://127.0.0.1/a.zarr", storage_options={"token": secret})
        try:
            with store:
                assert store.fs is not None
        except StoreCloseError as error:
            said.add_error(error)


@given(query=st.sampled_from(["token={}@{}", "GoogleAccessId=me@host&Signature={}", "#{}@host/{}", "{}/@{}/?{}"]))
@thorough
def test_an_at_sign_behind_a_question_mark(query: str) -> None:
    """A signature may hold it, and so do signed URLs of Google's: what follows it is no host."""
    with listening() as said:
        said.add(ManagedStore(f"https://127.0.0.1/a.zarr?{query}".replace("{}", f"{MARK}1")))


@given(word=st.text(alphabet="abcxyz", min_size=1, max_size=6), before=st.sampled_from(["sig=zqx", "zqx", ""]))
@thorough
def test_two_colons_in_a_query(word: str, before: str) -> None:
    """A signature may hold what in a chain of URLs would stand between two of them."""
    with listening() as said:
        try:
            said.add(ManagedStore(f"https://127.0.0.1/a.zarr?{before}::{MARK}{word}"))
        except ManagedStoreError as error:
            said.add_error(error)


@settings(max_examples=15, deadline=None)
@given(url=urls("refusing"), secret=secrets("-_.~+/:@"))
def test_the_command_line(url: str, secret: str) -> None:
    """`managed-store info` with a secret in the URL and in an option, which the filesystem refuses."""
    stream = io.StringIO()
    with listening() as said:
        with redirect_stderr(stream), redirect_stdout(stream), suppress(SystemExit):
            command(["info", f"nosuch{url}", "--option", f"token={secret}"])
        said.add(stream.getvalue())
    assert "nosuch" in stream.getvalue()
