"""A dask cluster: the tasks of a worker share one session, which the plugin closes when the worker ends.

``python examples/dask_cluster.py [URL of an array]``
"""

from __future__ import annotations

import dask.array
import zarr
from _demo_data import array_url
from distributed import Client, LocalCluster

from managed_store import ManagedStore
from managed_store.dask import ManagedStorePlugin, statistics


def main(url: str) -> None:
    # Worker processes; with any other cluster of dask (Kubernetes, SLURM, …) the rest is the same.
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        client.register_plugin(ManagedStorePlugin())
        with ManagedStore(url, read_only=True) as store:
            array = dask.array.from_zarr(zarr.open_array(store, mode="r"))
            print(f"mean of {array.npartitions} chunks: {array.mean().compute():.3f}")
            for worker, held in statistics(client).items():
                print(f"{worker} opened {held.opened} session")


# Worker processes import this file: only the main process may start a cluster.
if __name__ == "__main__":
    with array_url() as url:
        main(url)
