"""A pytest fixture: one pool for the whole run, so that no test pays for a session and none is left open.

Copy it and ``_demo_data.py`` into a suite of yours, with pytest-asyncio, and run it by ``python -m pytest``; the
variable ``ARRAY_URL`` leads it to an array of yours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import zarr
from _demo_data import demo_group

from managed_store import ManagedStore, StorePool


@pytest.fixture(scope="session")
def pool() -> Iterator[StorePool]:
    """Owns the sessions of all stores of the run; closed when the last test has ended."""
    with StorePool() as pool:
        yield pool


@pytest.fixture(scope="session")
def array_url() -> Iterator[str]:
    if "ARRAY_URL" in os.environ:
        yield os.environ["ARRAY_URL"]
    else:
        with demo_group() as url:
            yield f"{url}/temperature"


@pytest.fixture
def store(pool: StorePool, array_url: str) -> Iterator[ManagedStore]:
    """A store for one test. A test that forgets to close what it opens cannot hurt the next one."""
    with pool.store(array_url, read_only=True) as store:
        yield store


def test_it_has_values(store: ManagedStore) -> None:
    array = zarr.open_array(store, mode="r")
    assert array[0].size > 0


@pytest.mark.asyncio
async def test_an_asynchronous_test_has_a_session_on_its_own_loop(store: ManagedStore) -> None:
    """The session ends with the loop of the test."""
    array = await zarr.api.asynchronous.open_array(store=store, mode="r")
    assert (await array.getitem(0)).size > 0


def test_the_next_test_shares_the_session(store: ManagedStore, pool: StorePool) -> None:
    zarr.open_array(store, mode="r")
    assert pool.statistics().filesystems == 1
