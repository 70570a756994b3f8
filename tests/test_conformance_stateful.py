"""zarr's state machines: whatever hypothesis does to a store, it stays equal to a model of it."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import zarr
from hypothesis import HealthCheck, assume, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from zarr.testing.stateful import MAX_BINARY_SIZE, ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.strategies import keys

from managed_store import ManagedStore
from tests.conftest import Place

# Fewer where each request takes a millisecond or more.
EXAMPLES = {"memory": 30, "file": 20, "s3": 5, "gs": 5}
STEPS = {"memory": 30, "file": 30, "s3": 15, "gs": 15}

over_every_backend = pytest.mark.parametrize("backend", EXAMPLES)


class FolderStoreStateMachine(ZarrStoreStateMachine):
    """For backends with real folders, where no name can be a file and a folder at once. zarr makes no such keys."""

    @rule(key=keys(), data=st.binary(max_size=MAX_BINARY_SIZE))
    def set(self, key: str, data: bytes) -> None:
        """Set a key, unless that would turn a file into a folder or a folder into a file."""
        assume(not any(other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in self.model))
        super().set(key, data)


class FolderHierarchyStateMachine(ZarrHierarchyStateMachine):
    """For files, where a folder stays when its last chunk is deleted. zarr exempts its LocalStore from this check."""

    @precondition(lambda self: bool(self.all_groups))
    @rule(data=st.data())
    def check_list_dir(self, data: st.DataObject) -> None:
        """Compare what `list_dir` names, but for folders with nothing in them."""
        path = self.draw_directory(data).rstrip("/")
        names = self._sync_iter(self.store.list_dir(path))
        filled = [name for name in names if self.has_anything(f"{path}/{name}")]
        assert sorted(filled) == sorted(self._sync_iter(self.model.list_dir(path)))

    def has_anything(self, path: str) -> bool:
        """Tell keys and folders with keys in them from empty folders."""
        return self._sync(self.store.exists(path)) or not self._sync(self.store.is_empty(path))


STORE_MACHINES = {
    "memory": FolderStoreStateMachine,
    "file": FolderStoreStateMachine,
    "s3": ZarrStoreStateMachine,
    "gs": ZarrStoreStateMachine,
}
HIERARCHY_MACHINES = {
    "memory": ZarrHierarchyStateMachine,
    "file": FolderHierarchyStateMachine,
    "s3": ZarrHierarchyStateMachine,
    "gs": ZarrHierarchyStateMachine,
}


def run(machine_class: type[RuleBasedStateMachine], backend: str, place: Place) -> None:
    """Run a state machine over one store, which each example begins by clearing."""
    with ManagedStore(place.url, storage_options=place.options) as store:
        run_state_machine_as_test(
            lambda: machine_class(store),
            settings=settings(
                max_examples=EXAMPLES[backend],
                stateful_step_count=STEPS[backend],
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),  # they judge how fast and how narrow zarr's strategies are
            ),
        )
        statistics = store.statistics()
    assert (statistics.opened, statistics.requests_in_flight) == (1, 0)
    assert store.statistics().loops == 0


@over_every_backend
def test_keys_and_values_stay_equal_to_a_model(backend: str, empty_place: Place) -> None:
    """Setting, getting in part, deleting, clearing and listing keys in any order keeps the store equal to a dict."""
    run(STORE_MACHINES[backend], backend, empty_place)


@pytest.fixture
def _rectilinear_chunks() -> Iterator[None]:
    """Allow what zarr's strategies may generate, where the installed zarr has it."""
    if "rectilinear_chunks" not in zarr.config.get("array"):
        yield
        return
    with zarr.config.set({"array.rectilinear_chunks": True}):
        yield


@over_every_backend
@pytest.mark.usefixtures("_rectilinear_chunks")
# zarr's strategies generate types that zarr itself warns of; nothing of that comes from the store.
@pytest.mark.filterwarnings("ignore::zarr.core.dtype.common.UnstableSpecificationWarning")
def test_hierarchies_stay_equal_to_a_model(backend: str, empty_place: Place) -> None:
    """Adding, resizing, overwriting and deleting groups and arrays keeps the store equal to zarr's MemoryStore."""
    run(HIERARCHY_MACHINES[backend], backend, empty_place)
