"""A script that reads a remote array: one store for each step, and one pool for many stores.

``python examples/script.py [URL of an array]``
"""

from __future__ import annotations

import zarr
from _demo_data import array_url

from managed_store import ManagedStore, StorePool


def main(url: str) -> None:
    # One store: what it opens is closed when the block ends.
    with ManagedStore(url, read_only=True) as store:
        array = zarr.open_array(store, mode="r")
        print(f"{array.shape} {array.dtype}, mean of the first step: {array[0].mean():.3f}")
    print(store.statistics())

    # Many stores: those with the same options share one session, which the pool closes.
    with StorePool() as pool:
        total = 0.0
        for _ in range(10):
            array = zarr.open_array(pool.store(url, read_only=True), mode="r")
            total += float(array[0].mean())
        print(f"{total / 10:.3f} from {pool.statistics().opened} session")


if __name__ == "__main__":
    with array_url() as url:
        main(url)
