"""xarray: datasets, trees and many datasets in one that close their sessions; the engine; stores that are lent."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dask
import numpy as np
import pytest
import xarray as xr
from zarr.core.sync import sync

from managed_store import ArgumentError, ArgumentTypeError, ManagedStore, StoreClosedError, StoreCloseError
from managed_store._datasets import ClosingOfDataset
from managed_store._leases import PROCESS_POOL
from managed_store.xarray import ManagedZarrBackendEntrypoint, open_dataset, open_datatree, open_mfdataset
from tests.conftest import place_of, trusting
from tests.servers import FolderServer, GCSServer, RunningServer, http_server
from tests.using import leaves_nothing

BACKENDS = ("http", "https", "gs", "s3")


def year(number: int) -> xr.Dataset:
    """One of several datasets that belong together; nothing of it is loaded when it is opened, but its coordinates."""
    values = np.arange(24.0).reshape(4, 6) + 100 * number
    coordinates = {"time": np.arange(4) + 4 * number, "x": np.arange(6)}
    return xr.Dataset({"t": (("time", "x"), values), "p": ("time", values[:, 0])}, coordinates, {"number": number})


TREE = {"/": xr.Dataset(attrs={"answer": 42}), "/a": year(0), "/b": xr.Dataset(), "/b/c": year(1)}


@dataclass(frozen=True)
class Data:
    """Two years and a tree on a server."""

    server: RunningServer
    root: str
    options: dict[str, Any]

    def url(self, name: str) -> str:
        return f"{self.root}/{name}"

    @property
    def years(self) -> list[str]:
        return [self.url("0.zarr"), self.url("1.zarr")]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data as local files."""
    root = tmp_path_factory.mktemp("xarray")
    for number in (0, 1):
        encoding = {"t": {"chunks": (2, 3)}}
        year(number).to_zarr(root / f"{number}.zarr", zarr_format=2, consolidated=True, encoding=encoding)
    xr.DataTree.from_dict(TREE).to_zarr(root / "tree.zarr", zarr_format=2, consolidated=True)
    return root


def copy_to(server: Any, folder: Path) -> None:
    """Copy the data to a server, below ``xarray``."""
    if isinstance(server, FolderServer):
        shutil.copytree(folder, server.root / "xarray")
        return
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"xarray/{path.relative_to(folder)}"
            upload = f"/upload/storage/v1/b/bucket/o?uploadType=media&name={quote(key, safe='')}"
            request = ("POST", upload) if isinstance(server, GCSServer) else ("PUT", f"/bucket/{key}")
            assert server.request(*request, path.read_bytes())[0] == 200


@pytest.fixture(scope="session")
def own(folder: Path) -> Iterator[Data]:
    """The data on an HTTP server that nobody else uses."""
    with http_server(folder) as server:
        yield Data(server, server.url, {})
        assert server.wait_for_connections(0) == 0


@pytest.fixture(scope="session")
def on(request: pytest.FixtureRequest, folder: Path, own: Data) -> Callable[[str], Data]:
    """The data on a server of any kind."""
    known = {"http": own}

    def on(backend: str) -> Data:
        if backend not in known:
            server = request.getfixturevalue({"gs": "gcs"}.get(backend, backend))
            place = trusting(place_of(backend, request), request)
            copy_to(server, folder)
            known[backend] = Data(server, place.url.replace("data.zarr", "xarray"), place.options)
        return known[backend]

    return on


@pytest.fixture
def data(backend: str, on: Callable[[str], Data]) -> Data:
    """The data on the server of `backend`."""
    return on(backend)


# The three functions, and the engine by its name.

Opener = Callable[..., Any]


def by_engine(url: str, **options: Any) -> xr.Dataset:
    return xr.open_dataset(url, engine="managed_zarr", **options)


def tree_by_engine(url: str, **options: Any) -> xr.DataTree:
    return xr.open_datatree(url, engine="managed_zarr", **options)


def check_tree(tree: xr.DataTree) -> None:
    for path, expected in TREE.items():
        xr.testing.assert_identical(tree[path].to_dataset(inherit=False).load(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dataset_closes_its_sessions(data: Data) -> None:
    """Data that is loaded late is right, the sessions are open until then, and closing leaves nothing."""

    def use() -> list[xr.Dataset]:
        datasets = [opener(data.years[0], storage_options=data.options) for opener in (open_dataset, by_engine)]
        for dataset in datasets:
            assert data.server.connections() > 0
            xr.testing.assert_identical(dataset.copy().load(), year(0))
            dataset.close()
            dataset.close()
        return datasets

    for dataset in leaves_nothing(use, data.server):
        with pytest.raises(StoreClosedError, match="was closed"):
            dataset["t"].load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tree_closes_its_sessions(data: Data) -> None:
    """All its groups share one store, which the tree closes."""

    def use() -> list[xr.DataTree]:
        trees = []
        for opener in (open_datatree, tree_by_engine):
            with opener(data.url("tree.zarr"), storage_options=data.options) as tree:
                assert data.server.connections() > 0
                check_tree(tree.copy())
            trees.append(tree)
        return trees

    for tree in leaves_nothing(use, data.server):
        tree.close()
        with pytest.raises(StoreClosedError, match="was closed"):
            tree["/b/c/t"].load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_datasets_share_one_session(data: Data) -> None:
    """The years are one dataset; one filesystem serves both, and closing it closes that."""

    def use() -> xr.Dataset:
        with open_mfdataset(data.years, storage_options=data.options) as dataset:
            assert data.server.connections() > 0
            assert dataset["t"].chunks is not None
            np.testing.assert_array_equal(dataset["t"], np.concatenate([year(0)["t"], year(1)["t"]]))
        return dataset

    dataset = leaves_nothing(use, data.server)
    dataset.close()
    with pytest.raises(StoreClosedError, match="was closed"):
        dataset["t"].compute()


def test_sessions_of_many_datasets(own: Data) -> None:
    """Twenty datasets through one session take fewer connections than datasets; by the engine, each takes its own."""
    names = own.years * 10
    opened = own.server.opened()
    with open_mfdataset(names, combine="nested", concat_dim="time", chunks=None) as dataset:
        assert dataset.sizes["time"] == 80
        assert 0 < own.server.opened() - opened < 20
    opened = own.server.opened()
    datasets = [by_engine(name) for name in names]
    assert own.server.opened() - opened >= 20
    for each in datasets:
        each.close()
    assert own.server.wait_for_connections(0) == 0


@pytest.mark.parametrize("opener", [open_dataset, by_engine])
def test_parameters_of_xarray(own: Data, opener: Opener) -> None:
    """They mean what they mean to xarray's own engine."""
    with opener(own.url("tree.zarr"), group="b/c", chunks={"x": 6}, drop_variables=["p"], consolidated=False) as ds:
        assert dict(ds.chunks) == {"time": (4,), "x": (6,)}
        assert "p" not in ds
        xr.testing.assert_identical(ds.compute(), year(1).drop_vars("p"))
    with opener(own.years[0], decode_cf=False, cache=False, close_timeout=1.0) as ds:
        assert ds.encoding["source"] == own.years[0]
        np.testing.assert_array_equal(ds["t"], year(0)["t"])
    assert own.server.wait_for_connections(0) == 0


def test_parameters_of_many_datasets(own: Data) -> None:
    """Nested lists, a function for each, attributes of one, threads, and those that cannot be opened left out."""
    seen = []

    def note(dataset: xr.Dataset) -> xr.Dataset:
        seen.append(dataset.encoding["source"])
        return dataset

    nested = [[each] for each in own.years]
    how: dict[str, Any] = {"data_vars": "minimal", "join": "exact", "compat": "override", "coords": "minimal"}
    how |= {"combine": "nested", "concat_dim": ["time", "x"], "preprocess": note, "attrs_file": own.years[1]}
    with dask.config.set(scheduler="processes"), open_mfdataset(nested, parallel=True, **how) as ds:
        assert ds.attrs == {"number": 1}
        assert sorted(seen) == own.years
        both = ds["t"].compute(scheduler="threads")
        np.testing.assert_array_equal(both, np.concatenate([year(0)["t"], year(1)["t"]]))
    with pytest.raises(StoreClosedError):  # it was opened in this process, whatever else dask is set to
        ds["t"].compute(scheduler="threads")
    with open_mfdataset([*own.years, own.url("none.zarr")], errors="ignore") as ds:
        assert ds.sizes["time"] == 8
    assert own.server.wait_for_connections(0) == 0


def test_groups(own: Data) -> None:
    """`open_groups` gives a dataset for each group: the last to be closed closes the store."""
    groups = xr.open_groups(own.url("tree.zarr"), engine="managed_zarr")
    assert set(groups) == set(TREE)
    first, *others = groups.values()
    for each in others:
        each.close()
        each.close()
    assert own.server.connections() > 0
    first.close()
    assert own.server.wait_for_connections(0) == 0
    with pytest.raises(StoreClosedError, match="was closed"):
        groups["/a"]["t"].load()


# Failures


@pytest.mark.parametrize("backend", ["http", "https"])
def test_nothing_is_left_if_opening_fails(data: Data) -> None:
    """There is no such dataset, group or variable: xarray's error comes out, and the sessions are closed."""

    def use() -> None:
        options = {"storage_options": data.options}
        for opener in (open_dataset, by_engine, open_datatree, tree_by_engine):
            with pytest.raises(FileNotFoundError):
                opener(data.url("none.zarr"), **options)
        for opener in (open_dataset, open_datatree):
            with pytest.raises(ValueError, match="chunks must be"):
                opener(data.years[0], chunks="what", **options)  # xarray says so when the store is open
        with pytest.raises(FileNotFoundError):
            open_mfdataset([data.years[0], data.url("none.zarr")], **options)
        with pytest.raises(ValueError, match=r"conflicting|combine|concat"):
            open_mfdataset(data.years, combine="nested", concat_dim=None, compat="identical", join="outer", **options)

    leaves_nothing(use, data.server)


def test_nothing_is_left_if_xarray_fails_after_the_engine(own: Data) -> None:
    """xarray drops what the engine gave it: as forgotten as a dataset can be, and closed in the background."""
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="chunks must be"):
            by_engine(own.years[0], chunks="what")
        gc.collect()
    assert [(each.category, each.filename) for each in caught] == [(ResourceWarning, __file__)]
    assert own.server.wait_for_connections(0) == 0


@pytest.mark.parametrize(
    "opener", [open_dataset, by_engine, open_datatree, lambda url, **more: open_mfdataset([url], **more)]
)
@pytest.mark.parametrize("fails", [True, False])
def test_the_exception_of_the_block_comes_out(own: Data, opener: Opener, fails: bool) -> None:
    """Also where the dataset cannot be closed, another loop being stuck; without one, that is StoreCloseError."""
    stuck = None
    let_go = threading.Event()
    with pytest.raises(KeyError if fails else StoreCloseError) as caught:
        with opener(own.years[0], close_timeout=0.3):
            stuck = block_a_loop_of(own.years[0], let_go)
            if fails:
                raise KeyError("of the block")
    let_go.set()
    assert stuck is not None
    stuck.join()
    message = "".join(getattr(caught.value, "__notes__", [])) if fails else str(caught.value)
    assert "took more than close_timeout=0.3 seconds" in message
    assert own.server.wait_for_connections(0) == 0


def block_a_loop_of(url: str, let_go: threading.Event) -> threading.Thread:
    """Have the loop of another thread open a session of the store at `url`; it answers nothing until it is let go."""
    opened = threading.Event()
    stores = {id(each): each for each in gc.get_objects() if type(each) is ManagedStore and not each.closed}
    (store,) = (each for each in stores.values() if each.url == url)

    async def open_and_block() -> None:
        await store.exists(".zgroup")
        opened.set()
        let_go.wait(10)

    thread = threading.Thread(target=lambda: asyncio.run(open_and_block()))
    thread.start()
    assert opened.wait(10)
    return thread


def test_closing_while_another_exception_is_handled(own: Data) -> None:
    """Only the exception of the dataset's own block takes precedence: a failure to close is not noted on others."""
    let_go = threading.Event()
    dataset = open_dataset(own.years[0], close_timeout=0.3)
    stuck = block_a_loop_of(own.years[0], let_go)
    try:
        raise KeyError("of something else")
    except KeyError:
        with pytest.raises(StoreCloseError):
            dataset.close()
    let_go.set()
    stuck.join()
    assert own.server.wait_for_connections(0) == 0


# Owning, deriving, forgetting


def test_what_is_derived_owns_nothing(own: Data) -> None:
    """Closing a part of a dataset leaves the dataset open; closing the dataset ends the part."""
    with open_dataset(own.years[0]) as dataset:
        part = dataset[["t"]].sel(x=slice(1, 3))
        for derived in (dataset.copy(), dataset[["t"]], dataset.chunk(), dataset["t"], dataset.assign(a=1)):
            derived.close()
        np.testing.assert_array_equal(dataset["t"].copy(), year(0)["t"])
    with pytest.raises(StoreClosedError, match="was closed"):
        part.load()
    assert own.server.wait_for_connections(0) == 0


@pytest.mark.parametrize("select", [lambda ds: ds.isel(x=0), lambda ds: ds.sel(x=0)])
def test_selecting_hands_the_closer_on(own: Data, select: Callable[[xr.Dataset], xr.Dataset]) -> None:
    """As in xarray, so that what is selected at once can be closed."""
    with select(open_dataset(own.years[0])) as dataset:
        np.testing.assert_array_equal(dataset["t"], year(0)["t"][:, 0])
    assert own.server.wait_for_connections(0) == 0


OPENERS = {
    "dataset": lambda data: open_dataset(data.years[0]),
    "engine": lambda data: xr.open_dataset(data.years[0], engine="managed_zarr"),
    "tree": lambda data: open_datatree(data.url("tree.zarr")),
    "many": lambda data: open_mfdataset(data.years),
}


@pytest.mark.parametrize("how", OPENERS)
def test_a_forgotten_one_is_warned_of_by_line(own: Data, how: str) -> None:
    """One warning with the user's line, when the last of it is dropped; the server sees the close."""
    opener = OPENERS[how]
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = opener(own)
        part = (opened["a"] if how == "tree" else opened)["t"][:2]
        del opened
        gc.collect()
        assert caught == []
        np.testing.assert_array_equal(part.copy(), year(0)["t"][:2])
        del part
        gc.collect()
    line = inspect.getsourcelines(opener)[1]
    assert [(each.category, each.filename, each.lineno) for each in caught] == [(ResourceWarning, __file__, line)]
    assert own.server.wait_for_connections(0) == 0


# Stores that xarray is lent


@pytest.mark.parametrize(
    ("backend", "zarr_format"), [("s3", 3), ("memory", 2), ("memory", 3), ("file", 2), ("file", 3)]
)
def test_xarray_does_not_close_a_store_that_it_is_lent(empty_place: Any, zarr_format: Any) -> None:
    """`to_zarr`, `open_zarr`, the engine zarr, trees: after each `close()` the store goes on working."""
    with empty_place.store() as store:
        year(0).to_zarr(store, zarr_format=zarr_format, consolidated=False)
        year(1).to_zarr(store, append_dim="time", consolidated=False)
        for lent in (store, store.with_read_only(True)):
            for opener in (xr.open_zarr, lambda store, **more: xr.open_dataset(store, engine="zarr", **more)):
                with opener(lent, consolidated=False) as dataset:
                    np.testing.assert_array_equal(dataset["t"], np.concatenate([year(0)["t"], year(1)["t"]]))
                assert not lent.closed
                assert not store.closed
        xr.DataTree.from_dict(TREE).to_zarr(store, zarr_format=zarr_format, mode="w", consolidated=False)
        with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
            check_tree(tree)
        assert not store.closed
        with xr.open_dataset(store, engine="zarr", group="a", consolidated=False) as dataset:
            xr.testing.assert_identical(dataset.load(), year(0))


# Loops, threads, processes


def test_loading_on_a_running_loop(own: Data) -> None:
    """`load_async` reads on the caller's loop; `close()` there leaves nothing either."""

    async def main() -> None:
        dataset = open_dataset(own.years[0])
        loaded = await dataset.load_async()
        np.testing.assert_array_equal(loaded["t"], year(0)["t"])
        dataset.close()
        await asyncio.sleep(0)

    leaves_nothing(lambda: asyncio.run(main()), own.server)


def test_many_at_once(own: Data) -> None:
    """Datasets on several threads do not disturb one another."""

    def use(number: int) -> float:
        opener = (open_dataset, by_engine)[number % 2]
        with opener(own.years[0]) as dataset:
            return float(dataset["t"].sum())

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(use, range(24))) == [float(year(0)["t"].sum())] * 24
    assert own.server.wait_for_connections(0) == 0


def test_computing_in_threads_leaves_nothing(own: Data) -> None:
    """dask's own threads read through zarr's loop."""

    def use() -> None:
        with open_dataset(own.years[0], chunks={}) as dataset:
            assert float(dataset["t"].mean().compute(scheduler="threads", num_workers=1)) == 11.5

    leaves_nothing(use, own.server)


@pytest.mark.parametrize("how", OPENERS)
def test_a_pickled_dataset(own: Data, how: str) -> None:
    """A copy opens sessions of its own; closing it ends those alone, and so does closing the original."""
    with OPENERS[how](own) as opened:
        copy = pickle.loads(pickle.dumps(opened))
        part, original = ((each["a"] if how == "tree" else each)["t"] for each in (copy, opened))
        np.testing.assert_array_equal(part.copy()[:4], year(0)["t"])
        copy.close()
        np.testing.assert_array_equal(original.copy()[:4], year(0)["t"])
        with pytest.raises(StoreClosedError, match="was closed"):
            part.compute()
        other = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal((other["a"] if how == "tree" else other)["t"].copy()[:4], year(0)["t"])
    other.close()
    sync(PROCESS_POOL.aclose_sessions(timeout=5.0))
    assert own.server.wait_for_connections(0) == 0


def test_names_of_chunks_are_the_same_each_time(own: Data) -> None:
    """dask tells by their names that two computations are the same; another dataset has others."""
    names = []
    for url in (own.years[0], own.years[0], own.years[1]):
        with dask.config.set({"tokenize.ensure-deterministic": True}), open_dataset(url, chunks={}) as dataset:
            names.append(dataset["t"].data.name)
    assert names[0] == names[1] != names[2]


PROCESSES = """
import sys
import dask, numpy as np
from managed_store.xarray import open_mfdataset
from tests.servers._statistics import fetch_statistics

if __name__ == "__main__":
    urls, port = sys.argv[1:3], int(sys.argv[3])
    with open_mfdataset(urls, chunks={}) as dataset:
        before = fetch_statistics(port).opened
        with dask.config.set({"multiprocessing.context": "spawn"}):
            total = float(dataset["t"].sum().compute(scheduler="processes", num_workers=2))
        print(total, fetch_statistics(port).opened - before)
"""


def test_computing_in_processes(own: Data, tmp_path: Path) -> None:
    """The chunks are read in two processes: each opens sessions of its own, and closes them when it ends."""
    (tmp_path / "program.py").write_text(PROCESSES)
    arguments = [
        sys.executable,
        "-W",
        "always",
        str(tmp_path / "program.py"),
        *own.years,
        str(own.server.statistics_port),
    ]
    root = Path(__file__).parent.parent
    ended = subprocess.run(
        arguments, capture_output=True, text=True, cwd=root, timeout=100, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    total, connections = ended.stdout.split()
    assert float(total) == float(year(0)["t"].sum() + year(1)["t"].sum())
    assert 1 <= int(connections) <= 2 * 10  # zarr asks for at most ten chunks at a time
    assert own.server.wait_for_connections(0) == 0


# Bad input, and what must not be disturbed


def test_bad_arguments(tmp_path: Path) -> None:
    """Each error names the argument, what was given, and what would work."""
    for opener in (open_dataset, open_datatree):
        with pytest.raises(ArgumentError, match="url must name a store"):
            opener("")
        with pytest.raises(ArgumentTypeError, match=r"url must be a string .* got ManagedFSSpecStore"):
            opener(ManagedStore("memory://a"))
        with pytest.raises(ArgumentTypeError, match="storage_options must be a mapping"):
            opener("memory://a", storage_options=3)
        with pytest.raises(ArgumentTypeError, match="engine must be left out"):
            opener("memory://a", engine="zarr")
        with pytest.raises(ArgumentTypeError, match="backend_kwargs must be left out"):
            opener("memory://a", backend_kwargs={})
        with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
            opener("memory://a", nothing=1)
    for urls in ("memory://*", None, b"a"):
        with pytest.raises(ArgumentTypeError, match=rf"urls must be a list of URLs.*got {type(urls).__name__}"):
            open_mfdataset(urls)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match=r"url must be a string .* got NoneType"):
        open_mfdataset(["memory://a", None])
    with pytest.raises(ArgumentTypeError, match=r"url must be a string .* got ManagedFSSpecStore"):
        by_engine(ManagedStore("memory://a"))
    with pytest.raises(ArgumentError, match="close_timeout"):
        by_engine("memory://a", close_timeout=-1)


@pytest.mark.parametrize("opener", [open_dataset, by_engine])
def test_secrets_are_in_no_message(own: Data, opener: Opener) -> None:
    """Neither in a dataset's repr or encoding, nor in what is raised."""
    root = own.root.replace("http://", "http://user:hunter2@")
    with opener(f"{root}/0.zarr", storage_options={"headers": {"X-Token": "hunter3"}}) as dataset:
        assert "hunter" not in f"{dataset!r} {dataset.encoding} {dataset['t'].encoding}"
    with pytest.raises(StoreClosedError) as caught:
        dataset["t"].load()
    assert "hunter" not in str(caught.value)
    with pytest.raises(FileNotFoundError) as missing:
        opener(f"{root}/none.zarr")
    assert "hunter" not in str(missing.value)


def test_the_engine_steals_nothing(folder: Path) -> None:
    """It is there by name, and guesses nothing: xarray's own engine goes on opening what it has opened."""
    engine = xr.backends.list_engines()["managed_zarr"]
    assert isinstance(engine, ManagedZarrBackendEntrypoint)
    for url in ("gs://bucket/a.zarr", "a.zarr", folder / "0.zarr", "a.nc", ManagedStore("memory://a"), b"CDF"):
        assert not engine.guess_can_open(url)
    with xr.open_dataset(folder / "0.zarr") as dataset:
        assert not isinstance(dataset._close, ClosingOfDataset)
    with by_engine(str(folder / "0.zarr")) as dataset:
        assert isinstance(dataset._close, ClosingOfDataset)


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_engine_costs_others_nothing() -> None:
    """xarray imports every engine when it looks for one: this one imports neither zarr nor fsspec nor a backend."""
    added = modules_after("import xarray, managed_store.xarray") - modules_after("import xarray, xarray.backends")
    added = {name for name in added if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in added} == {"managed_store"}


def test_a_missing_package_is_named() -> None:
    """Without xarray the error says what to install."""
    program = "import sys; sys.modules['xarray'] = None\nimport managed_store.xarray"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MissingPackageError: managed_store.xarray needs the package 'xarray': pip install" in ended.stderr


def test_chunks_without_dask_are_refused_by_name(folder: Path) -> None:
    """Without dask, xarray's own error names it; and nothing is left open."""
    program = f"""
import sys; sys.modules['dask'] = None
from managed_store.xarray import open_dataset, open_mfdataset
url = {str(folder / "0.zarr")!r}
for opener in (lambda: open_dataset(url, chunks={{}}), lambda: open_mfdataset([url])):
    try:
        opener().close()
    except Exception as error:
        print(type(error).__name__, error)
"""
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=False)
    print(ended.stdout, ended.stderr)
    assert ended.stdout.count("dask") >= 2
    assert ended.stderr == ""
