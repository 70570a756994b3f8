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


def test_importing_the_package_does_not_import_zarr() -> None:
    """A pytest plugin of this package must not import zarr into everybody's test run."""
    assert "zarr" not in modules_after("import managed_store")
