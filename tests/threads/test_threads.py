"""Each public thread is a program: its plain form shows what is reported, and with a managed store it is clean."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.footprint import NOTHING
from tests.matrix import Outcome
from tests.places import Places
from tests.threads.catalogue import NOT_REPRODUCED, REPRODUCED, Thread
from tests.threads.page import not_reproduced, reported
from tests.threads.running import PROGRAMS, forms_of, plain_symptoms, run_programs
from tests.threads.symptoms import Symptom
from tests.variants import missing, place_of_variant

PAGE = Path(__file__).parent.parent.parent / "docs/threads.md"

# Here each program runs on the first of its backends; `python -m tests.threads` takes all.
ON: dict[str, list[str]] = {}
for each in PROGRAMS:
    ON.setdefault(next(iter(plain_symptoms(each))), []).append(each)


@pytest.mark.timeout(900)  # a dozen programs in three forms, each with a limit of its own
@pytest.mark.parametrize("backend", ON)
def test_the_managed_form_is_clean_and_the_plain_one_is_not(backend: str, places: Places) -> None:
    """Managed: no error, nothing left at the last line, nothing on stderr, exit code 0. Plain: what the thread says.

    What the plain form leaves open is caught by `leak_check`, which finds nothing in the managed one. Where a release
    has mended what was reported, the plain form is clean, and the program says since when.
    """
    lacking = missing(backend)
    if lacking and os.environ.get("MANAGED_STORE_TEST_ALL") != "1":
        pytest.skip(f"{' and '.join(lacking)} not installed")
    forms = {name: forms_of(name, backend) for name in ON[backend]}
    outcomes = run_programs(forms, place_of_variant(backend, places))
    found = []
    for name, each in outcomes.items():
        symptom = plain_symptoms(name)[backend]
        differs = [*symptom.missing_from(each["plain"]), *symptom.uncaught_by(each.get("watched"))]
        found += [f"{name}, plain: {line}" for line in differs]
    found += [f"{name}, managed: {each['managed']}" for name, each in outcomes.items() if not each["managed"].passed]
    assert not found, "\n\n".join(found)


def test_every_program_is_in_the_catalogue() -> None:
    """And the other way round; no thread is both reproduced and not."""
    assert set(REPRODUCED) == set(PROGRAMS)
    reproduced = {thread for threads in REPRODUCED.values() for thread in threads}
    others = [thread for threads in NOT_REPRODUCED.values() for thread in threads]
    assert len(others) == len(set(others))
    assert not reproduced & set(others)
    for thread in [*reproduced, *others]:
        assert Thread(thread).url.startswith("https://github.com/")


def test_a_plain_form_that_is_clean_says_since_when() -> None:
    """An expectation of nothing at all is one of something that has been mended."""
    for name in PROGRAMS:
        for symptom in plain_symptoms(name).values():
            assert symptom.leaves or symptom.error or symptom.says or symptom.gone, name


def test_the_page_is_up_to_date() -> None:
    """What needs no run: every program with its threads, and why others have none."""
    page = PAGE.read_text()
    for name in PROGRAMS:
        assert reported(name) in page, f"{name}: write the page anew with python -m tests.threads --write {PAGE.name}"
    for line in not_reproduced():
        assert line in page


CLEAN = Outcome(grown=NOTHING, error=None, stderr=[], code=0)
LEAKING = replace(CLEAN, grown={**NOTHING, "sockets": 4})
FAILING = replace(CLEAN, error="RuntimeError: Event loop is closed")
NOISY = replace(CLEAN, stderr=["Unclosed client session"])


@pytest.mark.parametrize(
    ("symptom", "shown"),
    [
        (Symptom(), CLEAN),
        (Symptom(leaves=4), LEAKING),
        (Symptom(error="loop is closed"), FAILING),
        (Symptom(says="Unclosed"), NOISY),
    ],
)
def test_a_symptom_is_told_from_any_other(symptom: Symptom, shown: Outcome) -> None:
    """So that a plain form that leaks, fails or warns otherwise than reported is found out."""
    assert symptom.missing_from(shown) == []
    for other in (CLEAN, LEAKING, FAILING, NOISY):
        assert (symptom.missing_from(other) == []) == (other is shown)


def test_a_leak_that_the_check_overlooks_is_found_out() -> None:
    """Where something is left, the watched form must have raised, or have a note on its own error."""
    assert Symptom(leaves=1).uncaught_by(LEAKING)
    assert Symptom(leaves=1).uncaught_by(None)
    assert Symptom(leaves=1).uncaught_by(replace(LEAKING, trace="LeakError: The block has left open: 1 socket")) == []
    assert Symptom(error="closed").uncaught_by(None) == []
