"""The benchmarks still run, and the page of their results is what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the extra `benchmarks` is not installed")
pytest.importorskip("obstore", reason="the extra `benchmarks` is not installed")
pytest.importorskip("rich", reason="the extra `benchmarks` is not installed")

from tests.benchmarks import growth
from tests.benchmarks.__main__ import BENCHMARKS
from tests.benchmarks._measuring import TINY
from tests.benchmarks._results import gathered, of_json, to_json
from tests.benchmarks._written import page, write

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_runs(name: str, tmp_path: Path) -> None:
    """As little of it as there is; as many lines as it says, and all of them in the page and the plots."""
    results = list(BENCHMARKS[name].lines(TINY))
    assert len(results) == BENCHMARKS[name].planned(TINY)
    write(results, tmp_path)
    assert all(str(value) not in ("nan", "inf") for value in json.loads((tmp_path / "benchmarks.json").read_text()))
    text = (tmp_path / "benchmarks.md").read_text()
    for drawing in (tmp_path / "drawings/benchmarks").iterdir():
        assert drawing.name in text


def test_the_page_is_of_its_results() -> None:
    on, results = of_json((DOCS / "benchmarks.json").read_text())
    assert (DOCS / "benchmarks.md").read_text() == page(on, results)
    assert {each.benchmark for each in results} == set(BENCHMARKS)


def test_results_come_back_from_json(tmp_path: Path) -> None:
    made: list[Any] = [growth.Growth("growth", "http, private", 2, 1.0, {"blocks": [0.5, 1.0]}, {"cycle": [0.0, 1.0]})]
    assert of_json(to_json(gathered(made)))[1] == made
