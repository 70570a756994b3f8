"""What makes many calls at a time leaves none behind when it fails, or when its caller gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import gcsfs.core  # type: ignore[import-untyped]
import pytest
from zarr.core.buffer import cpu, default_buffer_prototype

from managed_store import ManagedStore
from tests.servers import GCSServer, fault_proxy
from tests.tiny_server import Answer, tiny_server

PROTOTYPE = default_buffer_prototype()


async def test_reading_many_values_of_which_one_fails() -> None:
    """The other reads end with it, and do not go on by themselves."""

    def respond(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if path.endswith("fails"):
            return Answer(500)
        time.sleep(0.5)
        return Answer(body=b"late")

    with tiny_server(respond) as url:
        async with ManagedStore(url) as store:
            before = asyncio.all_tasks()
            keys = ["fails", *(f"late {number}" for number in range(5))]
            with pytest.raises(Exception, match="500"):
                await store.get_partial_values(PROTOTYPE, [(key, None) for key in keys])
            assert asyncio.all_tasks() == before


@pytest.mark.parametrize("prefix", ["folder", ""])
async def test_deleting_many_keys_is_given_up(gcs: GCSServer, prefix: str) -> None:
    """gcsfs deletes keys in tasks, which would go on to try for half a minute."""
    with fault_proxy(gcs.port) as proxy:
        options = {**gcs.storage_options, "endpoint_url": proxy.url}
        filesystem = gcsfs.core.GCSFileSystem(**options, asynchronous=True, skip_instance_cache=True)
        async with ManagedStore.from_filesystem(filesystem, "bucket/many") as store:
            await asyncio.gather(*(store.set(f"folder/{n}", cpu.Buffer.from_bytes(b"any")) for n in range(130)))
            before = asyncio.all_tasks()
            deleting = asyncio.create_task(store.delete_dir(prefix))
            while len(asyncio.all_tasks()) < len(before) + 3:  # itself, and two of gcsfs's
                await asyncio.sleep(0.001)
            proxy.show("hang")
            await asyncio.sleep(0.1)
            assert not deleting.done()
            deleting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await deleting
            assert asyncio.all_tasks() == before
            proxy.show("pass")
            await store.delete_dir(prefix)
            assert [key async for key in store.list()] == []
