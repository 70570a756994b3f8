"""The small hierarchy that most tests read."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import zarr
from zarr.storage import MemoryStore

__all__ = ["EXPECTED", "hierarchy", "write_hierarchy"]

EXPECTED = np.arange(24, dtype="i4").reshape(4, 6)


def write_hierarchy(store: Any, zarr_format: Literal[2, 3] = 3) -> None:
    """Write a group with one array in four chunks."""
    group = zarr.create_group(store, zarr_format=zarr_format)
    array = group.create_array("numbers", shape=EXPECTED.shape, chunks=(2, 3), dtype=EXPECTED.dtype)
    array[:] = EXPECTED


def hierarchy(zarr_format: Literal[2, 3] = 3) -> dict[str, bytes]:
    """The same, as the contents of its keys."""
    contents: dict[str, Any] = {}
    write_hierarchy(MemoryStore(contents), zarr_format)
    return {key: value.to_bytes() for key, value in contents.items()}
