"""xarray's own tests of its zarr backend, with this store as the store that it is given.

All of xarray's tests of any zarr store are here, and those that it makes with a store in memory, among them the
asynchronous ones. Left out are those of its own stores and of paths, and a second run over files: xarray does the same
with a store of either kind, and `tests/test_xarray.py` has the servers.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from xarray.tests import conftest as fixtures
from xarray.tests import test_backends as upstream

from managed_store import ManagedStore

# These tests are for a pytest to which warnings are no errors: zarr's, of what its formats do not specify, and xarray's
# own. What is left open is one here, as ever.
pytestmark = pytest.mark.filterwarnings(
    "ignore", "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)

default_zarr_format = upstream.default_zarr_format
time_unit = fixtures.time_unit
use_dask = fixtures.use_dask


@pytest.fixture(autouse=True)
def skip_if_param(request: pytest.FixtureRequest) -> None:
    """Do with this mark as xarray's own configuration of pytest does, which is not installed with it."""
    for mark in request.node.iter_markers("skip_if_param"):
        parameters = {name: value for name, value in mark.kwargs.items() if name not in ("condition", "reason")}
        if mark.kwargs.get("condition", True) and parameters.items() <= request.node.callspec.params.items():
            pytest.skip(mark.kwargs["reason"])


class TestManagedStore(upstream.TestZarrDictStore):
    @contextmanager
    def create_zarr_target(self) -> Iterator[ManagedStore]:
        with ManagedStore(f"memory://xarray-{uuid.uuid4().hex}") as store:
            yield store
            assert not store.closed  # by xarray, which has only borrowed it
