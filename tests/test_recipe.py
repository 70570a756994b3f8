"""What becomes of a URL and its options: they end with the store that they were given to."""

from __future__ import annotations

import sys

from managed_store import ManagedStore

CYCLES = 1000


def blocks_after(cycles: range) -> int:
    """How many blocks of memory are in use when that many stores, each with a secret of its own, have come and gone."""
    for cycle in cycles:
        ManagedStore(f"http://127.0.0.1:1/{cycle}", storage_options={"headers": {"token": f"secret {cycle}"}})
    return sys.getallocatedblocks()


def test_secrets_that_are_rotated_do_not_pile_up() -> None:
    """Memory holds none of them for ever, as Python 3.12 does with strings that are interned."""
    before = blocks_after(range(10))
    assert blocks_after(range(10, 10 + CYCLES)) - before < CYCLES / 2
    if sys.version_info >= (3, 13):
        store = ManagedStore("http://127.0.0.1:1/", storage_options={"headers": {"token": f"secret {CYCLES}"}})
        assert not sys._is_interned(store._sessions.recipe.options["headers"]["token"])
