"""dask: tasks on worker processes and threads, with the plugin and without, as the server of the array sees them.

The server of the array counts connections of stores alone: those of dask's own scheduler and workers go elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import pytest
import xarray
import zarr
import zarr.api.asynchronous
from distributed import Client, LocalCluster

from managed_store import ArgumentError, ArgumentTypeError, ManagedStore, PoolStatistics
from managed_store._leases import PROCESS_POOL
from managed_store.dask import ManagedStorePlugin, statistics
from tests.programs import run
from tests.servers import FolderServer, S3Server, http_server

# Clusters of processes take their time on a busy machine.
pytestmark = pytest.mark.timeout(400)

EXPECTED = np.arange(1000, dtype="i4")


def write(store: Any) -> None:
    """A group with one array of a thousand chunks, as xarray reads it."""
    group = zarr.create_group(store)
    array = group.create_array("x", shape=(1000,), chunks=(1,), dtype="i4", compressors=None, dimension_names=["time"])
    array[:] = EXPECTED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write(root / "data.zarr")
    return root


@pytest.fixture(scope="module")
def module_server(folder: Path) -> Iterator[FolderServer]:
    with http_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def slow_server(folder: Path) -> Iterator[FolderServer]:
    """A server that takes its time for each answer, so that something can happen while a task waits for it."""
    with http_server(folder, latency=0.3) as server:
        yield server


@pytest.fixture
def server(module_server: FolderServer) -> Iterator[FolderServer]:
    """A server that sees no connection after the test."""
    yield module_server
    assert module_server.wait_for_connections(0, timeout=10) == 0


@pytest.fixture
def slow(slow_server: FolderServer) -> Iterator[FolderServer]:
    """The same of the slow one."""
    yield slow_server
    assert slow_server.wait_for_connections(0, timeout=10) == 0


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    """Two worker processes with one thread each.

    A LocalCluster gives a worker up if it finds it absent some seconds after an earlier restart: never here.
    """
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h", "distributed.worker.profile.enabled": False}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def with_plugin(processes: Client, server: FolderServer) -> Iterator[Client]:
    """The same with the plugin, which closes everything when it is taken off: `server` sees to that."""
    processes.register_plugin(ManagedStorePlugin())
    yield processes
    processes.unregister_worker_plugin("managed_store")


def threads(count: int) -> LocalCluster:
    """Workers that share this process."""
    return LocalCluster(n_workers=count, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


# What tasks do


def number(store: ManagedStore, index: int) -> int:
    return int(zarr.open_array(store, path="x", mode="r")[index])


async def number_on_the_workers_loop(store: ManagedStore, index: int) -> int:
    array = await zarr.api.asynchronous.open_array(store=store, path="x", mode="r")
    return int(await array.getitem(index))


def number_or_death(store: ManagedStore, index: int, marker: Path) -> int:
    """The first task that comes here has its process killed while it waits for the server."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return number(store, index)
    threading.Timer(0.15, os.kill, [os.getpid(), signal.SIGKILL]).start()
    return number(store, index)


# Worker processes


def test_a_thousand_tasks_on_two_workers_open_one_session_each(with_plugin: Client, server: FolderServer) -> None:
    """A task a chunk through `dask.array.from_zarr`: one session, one connection for each worker, and right numbers."""
    before, held_before = server.statistics(), statistics(with_plugin)
    with ManagedStore(f"{server.url}/data.zarr", read_only=True) as store:
        array = dask.array.from_zarr(zarr.open_array(store, path="x", mode="r"))
        assert array.npartitions == 1000
        mine = server.opened() - before.opened
        assert int(array.sum().compute()) == EXPECTED.sum()
        now = server.statistics()
        assert now.requests - before.requests >= 1000
        assert now.opened - before.opened == mine + 2
    for worker, held in statistics(with_plugin).items():
        assert isinstance(held, PoolStatistics)
        assert (held.filesystems, held.loops, held.forced) == (1, 1, 0)
        assert held.opened - held_before[worker].opened == 1


def test_xarray_computes_on_workers(with_plugin: Client, s3: S3Server) -> None:
    """`xarray.open_zarr` of a store on S3, chunk by chunk on the workers, which hold one session each."""
    with ManagedStore("s3://bucket/dask.zarr", storage_options=s3.storage_options) as store:
        array = dask.array.arange(40, chunks=5, dtype="i4")
        xarray.Dataset({"x": ("time", array)}).to_zarr(store, consolidated=False)  # written by the workers, too
        with xarray.open_zarr(store, chunks={}, consolidated=False) as dataset:
            assert float(dataset["x"].mean().compute()) == np.arange(40).mean()
    assert {held.filesystems for held in statistics(with_plugin).values()} <= {0, 1}
    assert sum(held.filesystems for held in statistics(with_plugin).values()) >= 1
    with_plugin.unregister_worker_plugin("managed_store")
    assert s3.wait_for_connections(0) == 0
    with_plugin.register_plugin(ManagedStorePlugin())


def test_tasks_that_are_coroutines_have_a_session_on_the_workers_loop(
    with_plugin: Client, server: FolderServer
) -> None:
    """Two loops of one worker, two sessions; the plugin closes both gracefully, its own loop's without blocking it."""
    with ManagedStore(f"{server.url}/data.zarr", read_only=True) as store:
        worker = sorted(statistics(with_plugin))[0]
        for task in (number, number_on_the_workers_loop):
            assert with_plugin.submit(task, store, 7, workers=[worker]).result() == 7
    before = statistics(with_plugin)[worker]
    assert (before.filesystems, before.loops) == (2, 2)
    with_plugin.unregister_worker_plugin("managed_store")
    now = statistics(with_plugin)[worker]
    assert (now.filesystems, now.closed - before.closed, now.forced) == (0, 2, 0)
    with_plugin.register_plugin(ManagedStorePlugin())


@pytest.mark.parametrize("plugin", [True, False])
def test_the_connections_of_a_worker_end_with_it(processes: Client, server: FolderServer, plugin: bool) -> None:
    """A worker that is started anew leaves no connection behind; with the plugin, it says how it has closed it."""
    if plugin:
        processes.register_plugin(ManagedStorePlugin())
    [worker, _] = statistics(processes)
    with ManagedStore(f"{server.url}/data.zarr", read_only=True) as store:
        assert processes.submit(number, store, 7, workers=[worker], pure=False).result() == 7
    assert server.connections() >= 1
    closed, reported = statistics(processes)[worker].closed, len(processes.get_events("managed_store") or ())
    processes.restart_workers([worker])
    assert server.wait_for_connections(0) == 0
    if plugin:
        [(_, event)] = processes.get_events("managed_store")[reported:]
        assert (event["filesystems"], event["closed"] - closed, event["forced"]) == (0, 1, 0)
        processes.unregister_worker_plugin("managed_store")


def test_a_worker_that_is_killed_in_mid_task(with_plugin: Client, slow: FolderServer, tmp_path: Path) -> None:
    """SIGKILL while a task waits for the server: the nanny starts another process, and the results are right."""
    pids = set(with_plugin.run(os.getpid).values())
    with ManagedStore(f"{slow.url}/data.zarr", read_only=True) as store:
        futures = with_plugin.map(
            lambda index: number_or_death(store, index, tmp_path / "marker"), range(6), pure=False
        )
        assert with_plugin.gather(futures) == list(range(6))
        del futures
    with_plugin.wait_for_workers(2, timeout=60)
    assert len(pids & set(with_plugin.run(os.getpid).values())) == 1
    with_plugin.unregister_worker_plugin("managed_store")  # then `slow` sees no connection
    with_plugin.register_plugin(ManagedStorePlugin())


# Workers that share a process


def test_a_worker_that_ends_disturbs_no_other_of_its_process(slow: FolderServer) -> None:
    """One of two workers goes while the other reads: no session is closed; the last worker closes them all."""
    before = PROCESS_POOL.statistics()
    with threads(2) as cluster, Client(cluster) as client:
        client.register_plugin(ManagedStorePlugin())
        with ManagedStore(f"{slow.url}/data.zarr", read_only=True) as store:
            one, other = statistics(client)
            assert client.submit(number, store, 1, workers=[one]).result() == 1
            reading = client.submit(number, store, 2, workers=[other])
            wait_until(lambda: PROCESS_POOL.statistics().requests_in_flight > 0)
            client.retire_workers([one])
            assert reading.result() == 2
            held = PROCESS_POOL.statistics()
            assert (held.opened - before.opened, held.closed - before.closed) == (1, 0)
            del reading
    held = PROCESS_POOL.statistics()
    assert (held.filesystems, held.closed - before.closed, held.forced - before.forced) == (0, 1, 0)


def test_the_end_of_a_worker_waits_for_no_server_that_hangs(folder: Path, server: FolderServer) -> None:
    """Requests are cut off after `close_timeout`; the worker goes on, and reads elsewhere."""
    with http_server(folder, latency=10) as hanging, threads(1) as cluster, Client(cluster) as client:
        client.register_plugin(ManagedStorePlugin(close_timeout=1))
        with ManagedStore(f"{hanging.url}/data.zarr", read_only=True) as store:
            reading = client.submit(number, store, 1)
            wait_until(lambda: PROCESS_POOL.statistics().requests_in_flight > 0)
            client.unregister_worker_plugin("managed_store")
            assert PROCESS_POOL.statistics().filesystems == 0
            with pytest.raises(RuntimeError, match="was closed"):
                reading.result()
        client.register_plugin(ManagedStorePlugin())
        with ManagedStore(f"{server.url}/data.zarr", read_only=True) as store:
            assert client.submit(number, store, 2).result() == 2


def test_statistics_of_an_asynchronous_client(server: FolderServer) -> None:
    """An asynchronous client awaits them; its workers run on the caller's own loop."""

    async def main() -> None:
        async with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", asynchronous=True
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await client.register_plugin(ManagedStorePlugin())
            async with ManagedStore(f"{server.url}/data.zarr", read_only=True) as store:
                assert await client.submit(number_on_the_workers_loop, store, 3) == 3
            [held] = (await statistics(client)).values()
            assert (held.filesystems, held.loops) == (1, 1)
        assert PROCESS_POOL.statistics().filesystems == 0

    asyncio.run(main())


# dask's other schedulers


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
def test_the_schedulers_of_dask_alone(server: FolderServer, scheduler: str) -> None:
    """Threads use the store itself; processes have sessions of their own, which end with them."""
    with ManagedStore(f"{server.url}/data.zarr", read_only=True) as store:
        array = dask.array.from_zarr(zarr.open_array(store, path="x", mode="r"))[:20]
        assert int(array.sum().compute(scheduler=scheduler, num_workers=1)) == EXPECTED[:20].sum()
        assert store.statistics().opened == 1


# Bad input


def test_bad_input() -> None:
    """What is no client and no number of seconds is said to be none."""
    with pytest.raises(ArgumentTypeError, match=r"client must be a distributed\.Client; got str"):
        statistics("tcp://127.0.0.1:8786")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="close_timeout"):
        ManagedStorePlugin(close_timeout=-1)


def test_without_distributed() -> None:
    """The error says what to install."""
    program = """
sys.modules["distributed"] = None
try:
    import managed_store.dask
except ImportError as error:
    print(type(error).__name__, error)
"""
    with http_server() as server:
        ended = run(program, server)
    assert ended.quietly == (0, "")
    assert ended.output.startswith("MissingPackageError managed_store.dask needs the package distributed")
    assert "managed-store[dask]" in ended.output
