"""Chains of URLs that cannot work: what is refused, and how."""

from __future__ import annotations

from typing import Any

import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ArgumentError, ManagedStore, StoreOpenError, UnknownProtocolError
from tests.every_backend import Everything, backends, everything

__all__ = ["everything"]  # the fixture

PROTOTYPE = default_buffer_prototype()
KEY = "folder/small"
SECRET = "hunter2"


async def aread(store: Any) -> bytes:
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return bytes(value.to_bytes())


def read(store: Any) -> bytes:
    return sync(aread(store))


def refused(url: str, options: dict[str, Any] | None = None) -> str:
    """The message with which the constructor refuses it: it names an argument, and no secret."""
    with pytest.raises(ArgumentError) as caught:
        ManagedStore(url, storage_options=options)
    message = str(caught.value)
    assert message.startswith(("url ", "storage_options["))
    assert SECRET not in message
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)
    return message


@pytest.mark.parametrize(
    "url",
    [
        "s4://bucket/a", "simplecache::s4://bucket/a", "zip://a::s4://b/c::https://h/x",
        f"zip://a::simplecache::s4://user:{SECRET}@bucket/a", "s4://a::simplecache::https://h/x",
    ],
)  # fmt: skip
def test_an_unknown_protocol_in_any_place(url: str) -> None:
    """It is named, with some that are known."""
    with pytest.raises(UnknownProtocolError, match=r"unknown protocol 's4' .* fsspec knows, among others") as caught:
        ManagedStore(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["s4::https://h/x", "simplecache::s4::https://h/x", "simplecach::https://h/x"])
def test_an_unknown_word_in_a_chain(url: str) -> None:
    """A bare word that is no protocol would be a local file's name; the message repeats the word."""
    word = "simplecach" if "simplecach:" in url else "s4"
    assert repr(word) in refused(url)


@pytest.mark.parametrize(
    "url",
    ["simplecache::", "::https://h/x", "::", "simplecache::::https://h/x", f"zip://a::::https://u:{SECRET}@h/x?{SECRET}"],
)  # fmt: skip
def test_an_empty_part(url: str) -> None:
    """A part between two colons is missing."""
    assert "empty part in the chain" in refused(url)
    assert "'simplecache::https://host/data.zarr'" in refused(url)


@pytest.mark.parametrize("url", ["zip://", "zip://a", "dir://x", "simplecache://x", "reference://", "tar://x"])
def test_a_chain_that_ends_too_soon(url: str) -> None:
    """What is laid over another filesystem needs one, from the URL or the options."""
    protocol = url.partition(":")[0]
    message = refused(url)
    assert f"names no filesystem for {protocol!r}" in message
    assert f"'{protocol}::https://host/path'" in message
    assert "storage_options['target_protocol'] or ['fo']" in message
    assert f"names no filesystem for {protocol!r}" in refused(f"simplecache::{url}")


@pytest.mark.parametrize(
    "url", [f"https://u:{SECRET}@a::https://b", "s3://a::https://b", "memory::https://b", "file::s3://a"]
)
def test_a_filesystem_that_stands_by_itself_cannot_be_laid_over_another(url: str) -> None:
    """The message says which one, and what can be."""
    message = refused(url)
    assert f"url lays {url.partition(':')[0]!r} over another filesystem" in message
    assert "dir, filecache, reference, simplecache, zip" in message


@pytest.mark.parametrize("url", ["https://h/x", "simplecache::https://h/x", "zip://a::simplecache::https://h/x"])
def test_options_for_a_protocol_that_is_not_there(url: str) -> None:
    """They would be lost."""
    message = refused(url, {"s3": {"secret": SECRET}})
    assert "storage_options['s3'] holds options for the protocol 's3', which is not in" in message


@pytest.mark.parametrize(
    ("url", "options", "name", "inner"),
    [
        ("simplecache::s3://b/x", {"anon": True}, "anon", "s3"),
        ("filecache::gs://b/x", {"token": SECRET}, "token", "gs"),
        ("zip://a::https://h/x", {"client_kwargs": {"headers": {"token": SECRET}}}, "client_kwargs", "https"),
        ("simplecache::s3://b/x", {"simplecache": {"secret": SECRET}}, "secret", "s3"),
        ("zip://a::simplecache::s3://b/x", {"simplecache": {"anon": True}}, "anon", "s3"),
        ("dir://a::s3://b/x", {"anon": True}, "anon", "s3"),
        ("tar://a::s3://b/x", {"secret": SECRET}, "secret", "s3"),
    ],
)  # fmt: skip
def test_options_at_the_wrong_level(url: str, options: dict[str, Any], name: str, inner: str) -> None:
    """Those of an inner filesystem do not reach it from the outside; the message shows where they belong."""
    message = refused(url, options)
    assert f"storage_options[{name!r}] is no option of" in message
    assert f"storage_options={{'{inner}': {{'{name}': …}}}}" in message


@pytest.mark.parametrize("level", ["outermost", "middle", "innermost"])
@pytest.mark.parametrize("option", [{"skip_instance_cache": False}, {"asynchronous": False}, {"loop": object()}])
def test_what_the_store_decides_cannot_be_decided_at_any_level(level: str, option: dict[str, Any]) -> None:
    """Otherwise a filesystem of the chain would be shared, or would live on a loop that nobody closes it on."""
    protocol = {"outermost": "zip", "middle": "simplecache", "innermost": "https"}[level]
    name = next(iter(option))
    message = refused("zip://a::simplecache::https://h/x", {protocol: option})
    assert f"[{name!r}] must be" in message
    assert protocol in message


@pytest.mark.parametrize("level", ["zip", "simplecache", "https"])
def test_saying_the_same_at_any_level_is_allowed(level: str) -> None:
    """What the store decides anyway may be said, and makes no difference."""
    url = "zip://a::simplecache::https://h/x"
    same = {"skip_instance_cache": True, "asynchronous": True, "loop": None}
    assert ManagedStore(url, storage_options={level: same}) is not None


@pytest.mark.parametrize("options", [3, "anon", ["anon"], True])
def test_options_of_a_level_must_be_a_mapping(options: Any) -> None:
    """What stands under a protocol is named when it is no mapping."""
    with pytest.raises((ArgumentError, TypeError), match=r"storage_options\['https'\] must be a mapping"):
        ManagedStore("simplecache::https://h/x", storage_options={"https": options})


@backends("ftp", "webhdfs", "sftp", "smb")
def test_a_host_that_differs_between_url_and_options(backend: str, everything: Everything) -> None:
    """Only the filesystem's class can tell: at first use, and the message names the option, without its value."""
    url = f"{backend}://user:{SECRET}@one.example/share/x"
    with ManagedStore(url, storage_options={"host": "two.example"}) as store:
        with pytest.raises(StoreOpenError) as caught:
            read(store)
    cause = caught.value.__cause__
    assert isinstance(cause, ArgumentError)
    assert "storage_options['host'] and the url say different things" in str(cause)
    assert SECRET not in str(caught.value) + str(cause)
