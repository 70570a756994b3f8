"""References: a key that is in the table is there, whatever becomes of the file that it stands for."""

from __future__ import annotations

import pickle
from typing import cast

import pytest
from fsspec.implementations.reference import ReferenceNotReachable
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore
from tests.servers import fault_proxy, http_server
from tests.servers.faults import Fault

PROTOTYPE = default_buffer_prototype()
CONTENT = b"0123456789"


@pytest.mark.parametrize("fault", ["reset", "refuse"])
def test_a_broken_connection_to_a_whole_file_is_no_missing_key(fault: str) -> None:
    """A sharded array would otherwise be read as its fill value. As plain zarr, it says what it could not reach."""
    with http_server() as server, fault_proxy(server.port) as proxy:
        (server.root / "file").write_bytes(CONTENT)
        references = {"version": 1, "refs": {"key": [f"{proxy.url}/file"]}}
        with ManagedStore("reference://", storage_options={"fo": references}, read_only=True) as store:
            for byte_range, expected in ((RangeByteRequest(2, 4), b"23"), (SuffixByteRequest(2), b"89")):
                proxy.show("pass")
                got = sync(store.get("key", PROTOTYPE, byte_range))
                assert got is not None
                assert got.to_bytes() == expected
                proxy.show(cast("Fault", fault))
                with pytest.raises(ReferenceNotReachable):
                    sync(store.get("key", PROTOTYPE, byte_range))
            with pytest.raises(ReferenceNotReachable):
                sync(store.getsize("key"))


def test_a_reference_to_the_whole_target() -> None:
    """None stands for the target of the table."""
    with http_server() as server:
        (server.root / "file").write_bytes(CONTENT)
        options = {
            "fo": {"version": 1, "refs": {"key": [None]}}, "target": f"{server.url}/file", "remote_protocol": "http",
        }  # fmt: skip
        with ManagedStore("reference://", storage_options=options, read_only=True) as store:
            got = sync(store.get("key", PROTOTYPE, RangeByteRequest(2, 4)))
            assert got is not None
            assert got.to_bytes() == b"23"
            assert sync(store.getsize("key")) == len(CONTENT)


@pytest.mark.parametrize("is_pickled", [False, True])
def test_options_are_those_of_the_first_protocol(is_pickled: bool) -> None:
    """The first in the table, as in fsspec, whatever the names of the keys."""
    with http_server() as server:
        (server.root / "file").write_bytes(CONTENT)
        references = {"z": [f"{server.url}/file"], "a": [f"file://{server.root}/file"]}
        options = {"fo": {"version": 1, "refs": references}, "remote_options": {"headers": {"X-Token": "any"}}}
        with ManagedStore("reference://", storage_options=options, read_only=True) as store:
            opened = pickle.loads(pickle.dumps(store)) if is_pickled else store
            for key in references:
                got = sync(opened.get(key, PROTOTYPE))
                assert got is not None
                assert got.to_bytes() == CONTENT
            assert opened.fs.fss["http"].kwargs == {"headers": {"X-Token": "any"}}
            opened.close()
