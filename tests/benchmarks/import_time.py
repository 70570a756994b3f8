"""Importing managed_store's store, against importing zarr and fsspec alone: seconds of fresh interpreters.

``python -m tests.benchmarks.import_time [--pairs 10] [--json FILE]``
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.benchmarks._pairs import compare

PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement)], capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    base = "import zarr, fsspec"
    result = compare(
        "import",
        lambda: seconds(f"{base}; from managed_store import ManagedStore"),
        lambda: seconds(base),
        pairs=arguments.pairs,
    )
    print(result, f"difference of the medians: {(result.seconds - result.seconds_base) * 1e3:.1f} ms")
    if arguments.json:
        arguments.json.write_text(f"{result.to_json()}\n")


if __name__ == "__main__":
    main()
