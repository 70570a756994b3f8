"""Closed means closed: after leaving, the process holds exactly what it held before, on every backend and in every use.

Each cell is a fresh process under ``-X dev -W error`` with the garbage collector off. The controls run plain zarr the
same way: were the servers or the counting at fault, it would not leak. By default only a slice of the matrix runs,
in which every backend and every use is; ``MANAGED_STORE_TEST_FULL_MATRIX=1`` runs all, as ``python -m tests.matrix``.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import zarr

from managed_store import ManagedStore
from tests.conftest import BACKENDS, Place
from tests.matrix import Outcome, run_cells, uses_of
from tests.places import Places
from tests.uses import USES
from tests.variants import VARIANTS, missing, place_of_variant

FULL = os.environ.get("MANAGED_STORE_TEST_FULL_MATRIX") == "1"

# In the slice: backends that are used in every way; the others in so many, which go round.
THOROUGHLY = ("http", "s3")
OTHERWISE = 3

# Sockets that plain zarr leaves open after the plainest use; what depends on zarr's number of requests is a minimum.
LEAKS_IN_PLAIN_ZARR = {
    "http": 2, "https": 2, "gs": 2, "gs, plain class": 2, "s3": 2, "s3, cache_regions": 2, "az": 2, "zip::http": 1,
}  # fmt: skip
DOES_NOT_OPEN_IN_PLAIN_ZARR = ("simplecache::http", "dir::http")
FINE_IN_PLAIN_ZARR = ("memory",)

# Uses that plain zarr cannot do at all on these: the loop that its session was born on is closed, or is another one.
FAILS_IN_PLAIN_ZARR = {"run_twice", "sync_then_async", "async_then_sync", "mixed", "dropped_loop"}
NEVER_LEAKS = {"never", "uvloop", "forgotten_async"}  # nothing is opened, or the loop that is closed takes it along

AIOHTTP = ("http", "https", "gs", "gs, plain class", "s3", "az")


def slice_of(variant: str) -> list[str]:
    """The uses that are made of a backend in this run."""
    uses = uses_of(variant)
    if FULL or variant in THOROUGHLY:
        return uses
    first = list(VARIANTS).index(variant) * OTHERWISE
    return [uses[(first + each) % len(uses)] for each in range(OTHERWISE)]


def place_for(variant: str, places: Places, *, by_name: bool = False) -> Place:
    """The hierarchy on a backend; the test is skipped where something is missing for it, but not where nothing may."""
    lacking = missing(variant)
    if lacking and os.environ.get("MANAGED_STORE_TEST_ALL") != "1":
        pytest.skip(f"{' and '.join(lacking)} not installed")
    return place_of_variant(variant, places, by_name=by_name)


def failures(outcomes: dict[str, Outcome]) -> str:
    return "\n\n".join(f"{use}: {outcome}" for use, outcome in outcomes.items() if not outcome.passed)


def test_the_slice_has_every_use() -> None:
    """Not counting the backends that are used in every way."""
    assert {use for variant in VARIANTS if variant not in THOROUGHLY for use in slice_of(variant)} == set(USES)


@pytest.mark.parametrize("variant", VARIANTS)
def test_leaving_a_managed_store_leaves_nothing(variant: str, places: Places) -> None:
    """No socket, descriptor, thread, task or file stays, the data was right, and stderr is silent."""
    outcomes = run_cells(place_for(variant, places), slice_of(variant), plain=False)
    assert not failures(outcomes)


@pytest.mark.parametrize("variant", AIOHTTP)
def test_all_uses_in_one_process(variant: str, places: Places) -> None:
    """One after the other, so that what one leaves behind is found by the next; by the server's name."""
    place = place_for(variant, places, by_name=variant != "az")
    outcomes = run_cells(place, uses_of(variant), plain=False, together=True)
    assert not failures(outcomes)


def plain(variant: str, uses: list[str], places: Places) -> dict[str, Outcome]:
    return run_cells(place_for(variant, places), uses, plain=True)


@pytest.mark.parametrize("variant", LEAKS_IN_PLAIN_ZARR)
def test_control_plain_zarr_leaks(variant: str, places: Places) -> None:
    """The same program with plain zarr leaves sockets open, so the test above can fail."""
    uses = ["sync"] if not FULL else sorted(set(uses_of(variant)) - FAILS_IN_PLAIN_ZARR - NEVER_LEAKS - {"threads"})
    if variant == "zip::http":
        uses = ["sync", "async", "derived"]
    for use, outcome in plain(variant, uses, places).items():
        assert outcome.grown is not None
        assert outcome.grown["sockets"] >= LEAKS_IN_PLAIN_ZARR[variant], f"{use}: {outcome}"


@pytest.mark.parametrize("variant", sorted(LEAKS_IN_PLAIN_ZARR.keys() - {"zip::http"}))
def test_control_plain_zarr_fails_or_leaks(variant: str, places: Places) -> None:
    """What spans two loops fails with plain zarr, or leaks where the backend heals itself."""
    uses = sorted(FAILS_IN_PLAIN_ZARR) if FULL else ["run_twice"]
    for use, outcome in plain(variant, uses, places).items():
        assert outcome.error or (outcome.grown or {}).get("sockets", 0) > 0, f"{use}: {outcome}"


@pytest.mark.parametrize("variant", DOES_NOT_OPEN_IN_PLAIN_ZARR)
def test_control_plain_zarr_does_not_open(variant: str, places: Places) -> None:
    """Without options that say so at each level, zarr cannot use what is asynchronous underneath."""
    assert plain(variant, ["sync"], places)["sync"].error


@pytest.mark.parametrize("variant", FINE_IN_PLAIN_ZARR)
def test_control_plain_zarr_is_fine(variant: str, places: Places) -> None:
    """Where nothing is opened nothing is left, so the counting does not make it up."""
    assert not failures(plain(variant, ["sync", "async"], places))


@pytest.mark.parametrize("backend", BACKENDS)
def test_servers_keep_connections_alive(backend: str, place: Place, request: pytest.FixtureRequest) -> None:
    """The servers see the connections of a store that is open, so there are pooled sockets to be counted."""
    server: Any = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
    before = server.wait_for_connections(0)  # those of the program before may still be closing
    with ManagedStore(place.url, storage_options=place.options) as store:
        zarr.open_group(store, mode="r")
        assert server.connections() > before
    assert server.wait_for_connections(before) == before
