"""dask.distributed: close a worker's sessions when it ends, and see what the workers hold.

Nothing here is needed to read with dask: the copies of a store that come to a worker share one session for each event
loop, which is closed when it is idle and when the process exits. The plugin closes it as soon as the worker ends.
"""

from __future__ import annotations

import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from managed_store._arguments import checked_seconds
from managed_store._leases import PROCESS_POOL
from managed_store._statistics import PoolStatistics
from managed_store.errors import ArgumentTypeError, MissingPackageError

try:
    from distributed import Client, WorkerPlugin
except ImportError as error:
    raise MissingPackageError(
        "managed_store.dask needs the package distributed, which cannot be imported. "
        "Install it with: pip install 'managed-store[dask]'"
    ) from error

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["ManagedStorePlugin", "statistics"]

# The workers of this process that have the plugin: a LocalCluster of threads has all of its workers in one process.
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


class ManagedStorePlugin(WorkerPlugin):
    """Closes the sessions of a worker when the worker ends, or when the plugin is taken off it.

    Register it once, with ``client.register_plugin(ManagedStorePlugin())``: workers that come later get it too, and
    those that a nanny starts anew. Workers that share a process share its sessions; the last of them closes these.

    Parameters
    ----------
    close_timeout : float, default 2.0
        Seconds that closing may take at most. A nanny kills a worker that takes more than 4 seconds to end.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        `close_timeout` has a value that cannot work.

    Notes
    -----
    Requests in flight may finish in most of `close_timeout`. What a task reads after the plugin was taken off opens a
    session again, which is closed when it is idle or when the process exits.

    As it ends, each worker reports its `PoolStatistics` as an event: ``client.get_events("managed_store")``.

    Examples
    --------
    >>> from distributed import Client
    >>> from managed_store.dask import ManagedStorePlugin, statistics
    >>> with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
    ...     _ = client.register_plugin(ManagedStorePlugin())
    ...     len(statistics(client))  # one snapshot for each worker
    1
    """

    name = "managed_store"

    def __init__(self, *, close_timeout: float = 2.0) -> None:
        self._close_timeout = checked_seconds("close_timeout", close_timeout)

    def setup(self, worker: Worker) -> None:
        """Note that the worker has the plugin; distributed calls it, on the worker's event loop."""
        _workers.add(worker)

    async def teardown(self, worker: Worker) -> None:
        """Close the sessions of this process, unless another worker in it has the plugin; distributed awaits it.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that ends.

        Raises
        ------
        StoreCloseError
            Something was still open after `close_timeout` seconds. distributed logs it.
        """
        _workers.discard(worker)
        try:
            if not _workers:
                await PROCESS_POOL.aclose_sessions(self._close_timeout)
        finally:
            worker.log_event(self.name, asdict(PROCESS_POOL.statistics()))


def statistics(client: Client) -> Any:
    """Return what the stores hold that were sent to the workers: one frozen snapshot for each worker.

    It works with the plugin and without. Workers that share a process report the same.

    Parameters
    ----------
    client : distributed.Client
        The client of the cluster.

    Returns
    -------
    dict of str to PoolStatistics
        By the address of the worker. For an asynchronous client, an awaitable of that.

    Raises
    ------
    ArgumentTypeError
        `client` is no ``distributed.Client``.
    """
    if not isinstance(client, Client):
        raise ArgumentTypeError(f"client must be a distributed.Client; got {type(client).__name__}.")
    return client.run(_statistics_of_this_process)


def _statistics_of_this_process() -> PoolStatistics:
    return PROCESS_POOL.statistics()
