"""Bad input gets one clear error that names the argument, what was given and what would work; and nothing leaks."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import re
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import zarr
from fsspec.registry import known_implementations
from zarr.core.sync import sync

from managed_store import (
    ArgumentError,
    ArgumentTypeError,
    ManagedStore,
    MissingPackageError,
    StoreOpenError,
    UnknownProtocolError,
)
from tests.footprint import NOTHING, Footprint


@pytest.mark.parametrize("url", [None, 3, b"memory://a", ["memory://a"], object()])
def test_url_must_be_a_string(url: Any) -> None:
    """Whatever is no string or path is refused, by its type."""
    with pytest.raises(ArgumentTypeError, match=rf"url must be a string .* got {type(url).__name__}"):
        ManagedStore(url)


@pytest.mark.parametrize("url", ["", "   "])
def test_url_must_not_be_empty(url: str) -> None:
    """An empty URL would be the working folder."""
    with pytest.raises(ArgumentError, match="url must name a store"):
        ManagedStore(url)


def test_url_may_be_a_local_path(tmp_path: Path) -> None:
    """A plain path, as a string or as a path object, is a local store."""
    for url in (str(tmp_path / "a.zarr"), tmp_path / "b.zarr"):
        with ManagedStore(url) as store:  # type: ignore[arg-type]
            zarr.create_group(store, attributes={"answer": 42})
        assert zarr.open_group(str(url), mode="r").attrs["answer"] == 42


@pytest.mark.parametrize("url", ["s4://bucket/a.zarr", "simplecache::s4://bucket/a.zarr"])
def test_protocol_must_be_known(url: str) -> None:
    """The error names the protocol, and some that would work."""
    with pytest.raises(UnknownProtocolError, match=r"unknown protocol 's4' .* fsspec knows, among others"):
        ManagedStore(url)


@pytest.mark.parametrize("url", ["s3:/bucket/a.zarr", "http:/host/a.zarr", "simplecache::http:/host/a.zarr"])
def test_one_slash_after_the_protocol(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be a path here, and a store in a new folder; who means that can say so."""
    with pytest.raises(ArgumentError, match=r"two slashes after its protocol, as in '(s3|http)://…'"):
        ManagedStore(url)
    monkeypatch.chdir(tmp_path)
    with ManagedStore("./s3:/bucket") as store:
        zarr.create_group(store)
    assert (tmp_path / "s3:" / "bucket").is_dir()


@pytest.mark.parametrize(
    "url", ["https//user:SECRET@host/a?next=http://x", "user:SECRET@host://a", "s3:b?sig=SECRET://x"]
)
def test_what_is_no_protocol_is_not_shown(url: str) -> None:
    """A URL that is written wrongly may hold a secret where the protocol is looked for."""
    with pytest.raises(ArgumentError) as caught:
        ManagedStore(url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "remedy"),
    [("s3fs", r"pip install 'managed-store\[s3\]'"), ("adlfs", r"pip install 'managed-store\[azure\]'")],
)
def test_missing_package_names_the_extra(package: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which extra to install."""
    missing = f"{package}_that_is_not_installed"
    monkeypatch.setitem(known_implementations, "missing", {"class": f"{missing}.FileSystem"})
    monkeypatch.setitem(managed_extras(), missing, managed_extras()[package])
    with pytest.raises(MissingPackageError, match=remedy) as caught:
        ManagedStore("missing://bucket/a.zarr")
    assert caught.value.name == missing
    assert isinstance(caught.value, ImportError)


def test_missing_package_without_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that no extra installs is named itself."""
    implementation = {"class": "some_fs.FileSystem"}
    monkeypatch.setitem(known_implementations, "somefs", implementation)
    with pytest.raises(MissingPackageError, match="pip install some_fs"):
        ManagedStore("somefs://a")


@pytest.mark.parametrize(
    ("url", "package", "to_install"),
    [
        ("sftp://host/a", "paramiko", "paramiko"),
        ("zip::ssh://host/a.zip", "paramiko", "paramiko"),
        ("smb://host/share/a", "smbclient", "smbprotocol"),
        ("webhdfs://host/a", "requests", "requests"),
    ],
)
def test_missing_package_of_fsspecs_own_filesystems(
    url: str, package: str, to_install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a module of fsspec's needs is looked for at once, and not at first use."""
    monkeypatch.setattr("managed_store._protocols.registered_implementations", {})  # imported by other tests
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"'{package}' .*: pip install {to_install}\.") as caught:
        ManagedStore(url)
    assert caught.value.name == package


def test_each_filesystem_of_fsspec_that_needs_a_package_is_known() -> None:
    """Those of which fsspec itself says that something must be installed; and it is what their modules import."""
    from managed_store._protocols import _package_of

    own = {each["class"] for each in known_implementations.values() if "err" in each}
    for name in filter(lambda name: name.startswith("fsspec.") and not name.endswith("HTTPFileSystem"), own):
        module = importlib.util.find_spec(name.rpartition(".")[0])
        assert module is not None
        assert _package_of(name) in re.findall(r"(?:import|from) (\w+)", Path(str(module.origin)).read_text())


def managed_extras() -> dict[str, str]:
    from managed_store import _protocols

    return _protocols._TO_INSTALL


@pytest.mark.parametrize("options", [[("a", 1)], "anon", 3, {"a"}])
def test_storage_options_must_be_a_mapping(options: Any) -> None:
    """Whatever is no mapping is refused, by its type."""
    with pytest.raises(ArgumentTypeError, match=rf"storage_options must be a mapping .* got {type(options).__name__}"):
        ManagedStore("memory://a", storage_options=options)


def test_storage_options_must_have_strings_as_keys() -> None:
    """A key that is no string cannot be an option."""
    with pytest.raises(ArgumentTypeError, match="strings as keys"):
        ManagedStore("memory://a", storage_options={1: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asynchronous": False}, r"storage_options\['asynchronous'\] must be True or absent"),
        ({"skip_instance_cache": False}, r"storage_options\['skip_instance_cache'\] must be True or absent"),
        ({"loop": object()}, r"storage_options\['loop'\] must be absent"),
    ],
)
def test_options_that_contradict_a_managed_store(options: dict[str, Any], message: str) -> None:
    """What the store decides itself cannot be decided otherwise; saying the same is allowed."""
    with pytest.raises(ArgumentError, match=message):
        ManagedStore("memory://a", storage_options=options)
    same = {"asynchronous": True, "skip_instance_cache": True, "loop": None}
    assert ManagedStore("memory://a", storage_options=same) == ManagedStore("memory://a")


def test_storage_options_may_be_any_mapping() -> None:
    """A read-only mapping is as good as a dict, and later changes of the caller's containers do not reach the store."""
    nested: dict[str, Any] = {"headers": {"x": "1"}}
    store = ManagedStore("http://host/a", storage_options=MappingProxyType(nested))  # type: ignore[arg-type]
    nested["headers"]["x"] = "2"
    assert store == ManagedStore("http://host/a", storage_options={"headers": {"x": "1"}})


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf])
def test_close_timeout_must_be_a_finite_number_of_seconds(timeout: float) -> None:
    """Negative, NaN and endless times are refused."""
    with pytest.raises(ArgumentError, match="close_timeout must be a finite number of seconds, 0 or more"):
        ManagedStore("memory://a", close_timeout=timeout)


@pytest.mark.parametrize("timeout", ["5", None, True, [1]])
def test_close_timeout_must_be_a_number(timeout: Any) -> None:
    """Whatever is no number is refused, by its type."""
    with pytest.raises(ArgumentTypeError, match="close_timeout must be a number of seconds"):
        ManagedStore("memory://a", close_timeout=timeout)


@pytest.mark.parametrize("read_only", [None, "yes", 1])
def test_read_only_must_be_a_bool(read_only: Any) -> None:
    """A truthy something that was meant for another parameter is not taken for a flag."""
    with pytest.raises(ArgumentTypeError, match="read_only must be True or False"):
        ManagedStore("memory://a", read_only=read_only)


@pytest.mark.parametrize("allowed", [FileNotFoundError, ("FileNotFoundError",), [KeyError, 3]])
def test_allowed_exceptions_must_be_exception_types(allowed: Any) -> None:
    """A single type, or anything that is no type, is refused at once and not at the first missing key."""
    with pytest.raises(ArgumentTypeError, match="allowed_exceptions must be a tuple of exception types"):
        ManagedStore("memory://a", allowed_exceptions=allowed)


def test_what_only_the_filesystem_can_reject_is_raised_at_first_use() -> None:
    """The constructor does no I/O; what fails at first use leaves nothing open, and each use says so again."""
    sync(asyncio.sleep(0))  # zarr's loop is there before anything is counted
    with ManagedStore("s3://bucket/a.zarr", storage_options={"key": "a", "username": "b"}) as store:
        before = Footprint.before()
        for _ in range(2):
            with pytest.raises(StoreOpenError, match="could not be built: KeyError") as caught:
                zarr.open_group(store, mode="r")
            assert "Supply either key or username, not both" in str(caught.value.__cause__)
            with pytest.raises(StoreOpenError, match="could not be built: KeyError"):
                _ = store.fs
        assert before.grown_by(Footprint.now()) == NOTHING
        assert store.statistics().opened == 0


def test_a_constructor_that_fails_leaves_nothing_to_be_closed() -> None:
    """Neither a warning nor an error comes of collecting a half-made store."""
    import gc

    with pytest.raises(ArgumentError):
        ManagedStore("memory://a", close_timeout=-1)
    gc.collect()
