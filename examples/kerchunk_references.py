"""kerchunk references: an old file, read as zarr through a table that says where in it each chunk is.

``python examples/kerchunk_references.py [URL of a table of references, .json or a folder of .parquet files]``
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from _demo_data import serve_folder

from managed_store import ManagedStore


def main(url: str) -> None:
    # `reference::` reads the table at `url`, and the chunks from wherever the table leads. Options for that place, say
    # a bucket, are `storage_options={"remote_options": {"anon": True}}`; those for the table stand under its protocol.
    with ManagedStore(f"reference::{url}", read_only=True) as store:
        group = zarr.open_group(store, mode="r")
        for name, array in group.arrays():
            print(f"{name}: {array.shape} {array.dtype}, mean {array[...].mean():.3f}")


@contextmanager
def demo_references() -> Iterator[str]:
    """Serve a file of numbers behind a header of its own, as an old program wrote it, and references to them.

    kerchunk writes such tables for HDF5, NetCDF, GRIB, TIFF and FITS files.
    """
    with tempfile.TemporaryDirectory(prefix="managed-store-example-") as folder, serve_folder(Path(folder)) as server:
        numbers = np.arange(1000, dtype="<f4")
        Path(folder, "numbers.dat").write_bytes(b"HEADER OF 32 BYTES".ljust(32) + numbers.tobytes())
        metadata = {
            "zarr_format": 2, "shape": [1000], "chunks": [250], "dtype": "<f4", "order": "C",
            "fill_value": None, "compressor": None, "filters": None,
        }  # fmt: skip
        references = {".zgroup": json.dumps({"zarr_format": 2}), "numbers/.zarray": json.dumps(metadata)}
        references |= {
            f"numbers/{chunk}": [f"{server}/numbers.dat", 32 + 1000 * chunk, 1000]  # where it begins, and its length
            for chunk in range(4)
        }
        Path(folder, "references.json").write_text(json.dumps({"version": 1, "refs": references}))
        yield f"{server}/references.json"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with demo_references() as url:
            main(url)
