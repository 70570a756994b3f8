"""All that the doctor found, as text for a person and as data for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from managed_store import __version__
from managed_store._doctor.event_loops import Finding
from managed_store._doctor.self_test import Outcome
from managed_store._doctor.versions import Package

__all__ = ["Report"]

# Raised when a key of the JSON goes or changes its meaning; new ones may come.
_SCHEMA = 1

_WIDTH = 110


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes
    ----------
    packages : list of Package
        The installed versions.
    event_loops : list of Finding
        The set-up of event loops.
    self_test : list of Outcome
        What came of each backend; empty if it was left out.
    """

    packages: list[Package]
    event_loops: list[Finding]
    self_test: list[Outcome]

    def problems(self) -> list[str]:
        """What is not sound, a line for each. Known faults of versions are none: a managed store lives with them."""
        return [
            *(f"{each.name} {each.version} is not supported: {each.supported}" for each in self.packages
              if not each.is_supported),
            *(f"{each.check}: {each.found}" for each in self.event_loops if not each.sound),
            *(f"self-test of {each.backend}: {each.result}" for each in self.self_test if not each.is_sound),
        ]  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """The report as data for JSON."""
        return {
            "schema": _SCHEMA,
            "managed_store": __version__,
            "sound": not self.problems(),
            "problems": self.problems(),
            "versions": [{**asdict(each), "upgrade_to": each.upgrade_to} for each in self.packages],
            "event_loops": [asdict(each) for each in self.event_loops],
            "self_test": [asdict(each) for each in self.self_test],
        }

    def __str__(self) -> str:
        problems = self.problems()
        result = "Sound." if not problems else "\n".join(["Not sound:", *(f"  {problem}" for problem in problems)])
        parts = ["\n".join(["Versions, and what plain zarr and fsspec show on them", *self._versions()])]
        parts.append("\n".join(["Event loops", *self._event_loops()]))
        if self.self_test:
            parts.append("\n".join(["Self-test: read and closed through both APIs", *self._self_test()]))
        return "\n\n".join([*parts, result])

    def _versions(self) -> Iterator[str]:
        for each in self.packages:
            supported = "" if each.is_supported else f"  not supported: {each.supported}"
            upgrade = "" if each.upgrade_to is None else f"  upgrade to {each.upgrade_to} or newer"
            mended = f"  ({_faults(len(each.mended))} of older releases mended)" if each.mended else ""
            yield f"  {each.name:12}{each.version or 'not installed':14}{supported}{upgrade}{mended}".rstrip()
            for fact in each.known:
                yield from _wrapped(fact.symptom, "    - ")
                fixed = "no release mends it" if fact.fixed_in is None else f"mended in {fact.fixed_in}"
                yield from _wrapped(f"{fixed}; {fact.remedy}", "      ")
                yield f"      {' '.join(fact.threads)}"

    def _event_loops(self) -> Iterator[str]:
        for each in self.event_loops:
            yield f"  {'ok' if each.sound else 'NO':4}{each.check}: {each.found}"
            if each.advice:
                yield from _wrapped(each.advice, "      ")

    def _self_test(self) -> Iterator[str]:
        for each in self.self_test:
            time = "" if each.seconds is None else f"{each.seconds:.2f} s"
            yield f"  {each.backend:8}{each.result:15}{each.detail or time}".rstrip()
            yield from (f"      {line}" for line in each.left)


def _faults(count: int) -> str:
    return "1 fault" if count == 1 else f"{count} faults"


def _wrapped(text: str, prefix: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=" " * len(prefix))
