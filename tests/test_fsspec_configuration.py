"""fsspec's own configuration gives defaults for options, as everywhere in fsspec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from fsspec.config import conf

from managed_store import ManagedStore, StorePool
from tests.footprint import Footprint
from tests.hierarchy import EXPECTED, write_hierarchy
from tests.servers import FolderServer, S3Server


def numbers(store: ManagedStore) -> np.ndarray:
    return zarr.open_group(store, mode="r")["numbers"][:]


def test_options_of_the_configuration_are_used(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    """Where a server is, and who asks, need not be said in the code."""
    monkeypatch.setitem(conf, "s3", s3.storage_options)
    with ManagedStore("s3://bucket/data.zarr") as store:
        assert (numbers(store) == EXPECTED).all()


def test_options_of_the_user_come_first(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    """The configuration fills in what the options leave out, and changes nothing that they say."""
    monkeypatch.setitem(conf, "s3", {**s3.storage_options, "endpoint_url": "http://127.0.0.1:9"})
    with ManagedStore("s3://bucket/data.zarr", storage_options={"endpoint_url": s3.url}) as store:
        assert (numbers(store) == EXPECTED).all()


def test_options_of_an_inner_filesystem(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    """Each filesystem of a chain has its own."""
    monkeypatch.setitem(conf, "s3", s3.storage_options)
    with ManagedStore("simplecache::s3://bucket/data.zarr") as store:
        assert (numbers(store) == EXPECTED).all()


def test_a_cache_in_the_folder_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, http: FolderServer, tmp_path: Path
) -> None:
    """It is used, and is not removed when the store is closed: it is not the store's."""
    monkeypatch.setitem(conf, "simplecache", {"cache_storage": str(tmp_path)})
    with ManagedStore(f"simplecache::{http.url}/data.zarr") as store:
        assert (numbers(store) == EXPECTED).all()
    assert list(tmp_path.iterdir())


def test_what_a_store_decides_is_not_configured(monkeypatch: pytest.MonkeyPatch, http: FolderServer) -> None:
    """Its filesystems are private and asynchronous, and keep no listings, whatever the configuration says."""
    configured = {"skip_instance_cache": False, "asynchronous": False, "use_listings_cache": True}
    monkeypatch.setitem(conf, "http", configured)
    before = Footprint.before()
    with ManagedStore(f"{http.url}/data.zarr") as store, ManagedStore(f"{http.url}/data.zarr") as other:
        assert (numbers(store) == EXPECTED).all()
        assert store.fs.asynchronous
        assert store.fs is not other.fs
        assert not store.fs.dircache.use_listings_cache
    assert Footprint.now().sockets == before.sockets


def test_the_configuration_of_a_local_filesystem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A default of the store gives way to the configuration, as it does to an option."""
    monkeypatch.setitem(conf, "file", {"auto_mkdir": False})
    with ManagedStore(str(tmp_path / "data.zarr")) as store, pytest.raises(FileNotFoundError):
        write_hierarchy(store)


def test_a_configuration_that_is_changed_afterwards(monkeypatch: pytest.MonkeyPatch, http: FolderServer) -> None:
    """A secret in it is rotated in place: stores of a pool that come later have filesystems of their own."""
    headers, live = {"token": "old"}, object()
    monkeypatch.setitem(conf, "http", {"headers": headers, "live": live})
    with StorePool() as pool:
        old = pool.store(f"{http.url}/data.zarr")
        assert old.fs.kwargs["headers"] == {"token": "old"}
        assert old.fs.kwargs["live"] is live
        headers["token"] = "new"
        new = pool.store(f"{http.url}/data.zarr")
        assert new.fs.kwargs["headers"] == {"token": "new"}
        assert old.fs.kwargs["headers"] == {"token": "old"}
