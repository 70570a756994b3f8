"""What zarr writes through the store it reads back: both formats, consolidated, sharded, and by derived handles."""

from __future__ import annotations

import asyncio
import gc
import uuid
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.api.asynchronous

from managed_store import ManagedStore
from tests.conftest import BACKENDS, Place, write_hierarchy
from tests.hierarchy import EXPECTED

IMAGE = np.arange(15 * 14, dtype="f4").reshape(15, 14)

# zarr's own words on format 3, which it can read and write all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")


def write(store: Any, zarr_format: int) -> None:
    """Write groups, arrays, attributes and a string of chunks that are missing because nothing but zero is in them."""
    root = zarr.create_group(store, zarr_format=zarr_format, attributes={"title": "round trip"})
    image = root.create_group("inner").create_array("image", shape=IMAGE.shape, chunks=(4, 5), dtype=IMAGE.dtype)
    image[:] = IMAGE
    image.attrs["unit"] = "m"
    root.create_array("zeros", shape=(6,), chunks=(2,), dtype="i2", fill_value=0)[:] = 0
    root.create_array("scalar", shape=(), dtype="i8")[...] = 7
    if zarr_format == 3:
        sharded = root.create_array("sharded", shape=IMAGE.shape, chunks=(2, 3), shards=(8, 6), dtype=IMAGE.dtype)
        sharded[:] = IMAGE
    zarr.consolidate_metadata(store, zarr_format=zarr_format)


def check(store: Any, zarr_format: int, *, use_consolidated: bool) -> None:
    """Read all of it again, in whole and in part."""
    root = zarr.open_group(store, mode="r", zarr_format=zarr_format, use_consolidated=use_consolidated)
    assert (root.metadata.consolidated_metadata is not None) == use_consolidated
    assert dict(root.attrs) == {"title": "round trip"}
    names = {"inner", "inner/image", "zeros", "scalar", *(["sharded"] if zarr_format == 3 else [])}
    assert {name for name, _ in root.members(max_depth=None)} == names
    assert root["inner/image"].attrs["unit"] == "m"
    np.testing.assert_array_equal(root["inner/image"][:], IMAGE)
    np.testing.assert_array_equal(root["inner/image"][3:9, 7], IMAGE[3:9, 7])
    np.testing.assert_array_equal(root["zeros"][:], np.zeros(6, dtype="i2"))
    assert root["scalar"][()] == 7
    if zarr_format == 3:
        np.testing.assert_array_equal(root["sharded"][:], IMAGE)
        # One chunk within a shard: the index from the end of the object, then the part that it names.
        np.testing.assert_array_equal(root["sharded"][9:10, 7:8], IMAGE[9:10, 7:8])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("backend", ["memory", "file", "s3", "gs"])
def test_hierarchies_are_read_as_written(backend: str, zarr_format: int, empty_place: Place) -> None:
    """A hierarchy of either format, consolidated or not, with shards, is read as it was written, by another store."""
    with ManagedStore(empty_place.url, storage_options=empty_place.options) as store:
        write(store, zarr_format)
    with ManagedStore(empty_place.url, storage_options=empty_place.options) as store:
        check(store, zarr_format, use_consolidated=True)
        check(store, zarr_format, use_consolidated=False)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("backend", ["http", "https"])
def test_hierarchies_are_read_over_http(
    backend: str, zarr_format: int, place: Place, request: pytest.FixtureRequest
) -> None:
    """What plain zarr wrote into a served folder is read over HTTP, by metadata and by the server's index pages."""
    name = f"round-trip-{uuid.uuid4().hex}"
    write(str(request.getfixturevalue(backend).root / name), zarr_format)
    with ManagedStore(place.url.replace("data.zarr", name), storage_options=place.options) as store:
        check(store, zarr_format, use_consolidated=True)
        check(store, zarr_format, use_consolidated=False)


@pytest.mark.parametrize("backend", ["memory", "file", "s3", "gs"])
def test_arrays_are_changed_in_place(backend: str, empty_place: Place) -> None:
    """Overwriting a part, resizing, appending and deleting do to the stored array what they do to one in memory."""
    with ManagedStore(empty_place.url, storage_options=empty_place.options) as store:
        root = zarr.create_group(store)
        for name, shards in (("plain", None), ("sharded", (4, 6))):
            expected = IMAGE.copy()
            array = root.create_array(name, shape=IMAGE.shape, chunks=(2, 3), shards=shards, dtype=IMAGE.dtype)
            array[:] = IMAGE
            array[3:7, 2:9] = expected[3:7, 2:9] = -1
            array.append(IMAGE[:2])
            expected = np.concatenate([expected, IMAGE[:2]])
            np.testing.assert_array_equal(zarr.open_array(store, path=name, mode="r")[:], expected)
            array.resize((5, 14))
            np.testing.assert_array_equal(zarr.open_array(store, path=name, mode="r")[:], expected[:5])
        del root["plain"]
        assert sorted(zarr.open_group(store, mode="r").array_keys()) == ["sharded"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_group_keeps_the_sessions_alive(place: Place) -> None:
    """Where only the handle survives that zarr derives for ``mode="r"``, it works on, also after a collection."""
    group = zarr.open_group(ManagedStore(place.url, storage_options=place.options), mode="r")
    gc.collect()
    np.testing.assert_array_equal(group["numbers"][:], EXPECTED)
    array = group["numbers"]
    del group
    gc.collect()
    np.testing.assert_array_equal(array[:], EXPECTED)
    assert array.store.statistics().handles == 1
    array.store.close()
    assert (array.store.statistics().loops, array.store.statistics().forced) == (0, 0)


@pytest.mark.parametrize("backend", ["memory", "file"])
def test_local_group_keeps_the_sessions_alive(backend: str, empty_place: Place) -> None:
    """The same for the backends without a server."""
    with ManagedStore(empty_place.url) as store:
        write_hierarchy(store)
    array = zarr.open_array(ManagedStore(empty_place.url), path="numbers", mode="r")
    gc.collect()
    np.testing.assert_array_equal(array[:], EXPECTED)
    array.store.close()
    assert array.store.statistics().loops == 0


@pytest.mark.parametrize("backend", BACKENDS)
async def test_asynchronous_group_keeps_the_sessions_alive(place: Place) -> None:
    """The same on the caller's own loop."""
    store = ManagedStore(place.url, storage_options=place.options)
    group = await zarr.api.asynchronous.open_group(store, mode="r")
    del store
    gc.collect()
    await asyncio.sleep(0)
    array = await group.getitem("numbers")
    np.testing.assert_array_equal(await array.getitem(...), EXPECTED)
    await group.store.aclose()
    assert (group.store.statistics().loops, group.store.statistics().forced) == (0, 0)
