"""What the examples read: your own data, or else a small group that is served on 127.0.0.1 while the example runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from managed_store._demo_server import serve_folder  # a small HTTP server of a folder, in a thread


@contextmanager
def array_url() -> Iterator[str]:
    """Give the URL of an array: the first argument of the command line, or that of the demonstration."""
    if len(sys.argv) > 1:
        yield sys.argv[1]
    else:
        with demo_group() as url:
            yield f"{url}/temperature"


@contextmanager
def demo_group() -> Iterator[str]:
    """Serve a group with one array, `temperature`: 48 steps of 64 x 64 degrees, in chunks of 4 steps."""
    with tempfile.TemporaryDirectory(prefix="managed-store-example-") as folder:
        values = np.linspace(-10, 30, 48 * 64 * 64, dtype="f4").reshape(48, 64, 64)
        zarr.create_group(f"{folder}/demo.zarr").create_array(
            "temperature", data=values, chunks=(4, 64, 64), dimension_names=["time", "y", "x"]
        )
        with serve_folder(Path(folder)) as server:
            yield f"{server}/demo.zarr"
