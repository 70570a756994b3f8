"""Results as JSON, with what they were measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from tests.benchmarks._measuring import Line
from tests.benchmarks.growth import Growth

__all__ = ["Result", "gathered", "of_json", "to_json"]

Result: TypeAlias = "Line | Growth"

_PACKAGES = ("zarr", "fsspec", "aiohttp", "gcsfs", "s3fs", "obstore", "numpy")
_KINDS: dict[str, Any] = {"ratio": Line, "growth": Growth}


def gathered(results: Sequence[Result], note: str = "") -> dict[str, Any]:
    """Put results beside what they were measured on; nothing in it names the machine."""
    return {
        "on": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release().partition('-')[0]}",
            "cores": os.cpu_count(),
            "note": note,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "results": [asdict(result) for result in results],
    }


def to_json(everything: dict[str, Any]) -> str:
    """Write it, one result a line."""
    lines = ",\n".join(json.dumps(_rounded(result)) for result in everything["results"])
    return f'{{"on": {json.dumps(everything["on"])},\n"results": [\n{lines}\n]}}\n'


def of_json(text: str) -> tuple[dict[str, Any], list[Result]]:
    """Read it again."""
    everything = json.loads(text)
    return everything["on"], [_KINDS[each["kind"]](**each) for each in everything["results"]]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
