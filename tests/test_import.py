"""Importing is light: no backend until a URL needs it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("gcsfs", "google", "s3fs", "aiobotocore", "botocore", "adlfs", "azure", "xarray", "dask", "aiohttp", "grpc")


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_import_adds_nothing_heavy() -> None:
    """The store's own modules add to zarr and fsspec nothing but themselves and the standard library."""
    base = modules_after("import zarr, fsspec, fsspec.core")
    added = modules_after("from managed_store import ManagedStore; ManagedStore") - base
    assert not {name for name in added if name.partition(".")[0] in HEAVY}
    others = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names) - {"managed_store"}
    assert others <= {"fsspec", "zarr", "numcodecs"}, others


def test_making_a_store_imports_no_backend() -> None:
    """The constructor checks the package without importing it."""
    loaded = modules_after("from managed_store import ManagedStore; ManagedStore('gs://bucket/a.zarr')")
    assert "gcsfs" not in loaded


def test_a_store_imports_nothing_that_it_has_no_use_for() -> None:
    """Reading and closing one: no pool, and none of fsspec's filesystems that are laid over others. It is felt."""
    statement = "import zarr, fsspec.core, fsspec.implementations.memory"
    base = modules_after(statement)
    use = "from managed_store import ManagedStore\nwith ManagedStore('memory://a') as s: zarr.create_group(s)"
    added = modules_after(f"{statement}\n{use}") - base
    layered = {f"fsspec.implementations.{name}" for name in ("asyn_wrapper", "cached", "dirfs", "reference")}
    pools = {f"managed_store.{name}" for name in ("_leases", "_pooling", "_sharing", "_statistics", "pool")}
    assert added.isdisjoint({*layered, *pools, "fsspec.archive", "ftplib"})
    assert "managed_store.store" in added


def test_importing_the_package_does_not_import_zarr() -> None:
    """A pytest plugin of this package must not import zarr into everybody's test run."""
    assert "zarr" not in modules_after("import managed_store")
