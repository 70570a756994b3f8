"""The versions that are installed, and what is known of each."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from managed_store._doctor.facts import FACTS, Fact

__all__ = ["PACKAGES", "Package", "examine_versions", "installed_version", "installed_versions", "supported_versions"]

PACKAGES = ("Python", "zarr", "fsspec", "aiohttp", "gcsfs", "s3fs", "adlfs", "aiobotocore")


@dataclass(frozen=True)
class Package:
    """A package, and what is known of the version that is installed.

    Attributes
    ----------
    name : str
        Its name.
    version : str or None
        What is installed; None if it is not.
    supported : str
        The versions that this package works with, as a specifier; empty if it does not say.
    is_supported : bool
        Whether the installed one is among them; True if it is not installed.
    known : tuple of Fact
        The faults that it has.
    mended : tuple of Fact
        The faults that older releases have and it has not.
    """

    name: str
    version: str | None
    supported: str
    is_supported: bool
    known: tuple[Fact, ...]
    mended: tuple[Fact, ...]

    @property
    def upgrade_to(self) -> str | None:
        """The oldest release in which all is mended that an upgrade mends; None if there is nothing of that."""
        releases = [fact.fixed_in for fact in self.known if fact.fixed_in and fact.asks_for_upgrade]
        return max(releases, key=Version, default=None)


def installed_version(name: str) -> str | None:
    """Read the version of a package from its metadata; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str | None]:
    """Read the versions from the packages' metadata; nothing is imported."""
    return {name: platform.python_version() if name == "Python" else installed_version(name) for name in PACKAGES}


def supported_versions() -> dict[str, str]:
    """The versions that this package declares to work with, by name."""
    try:
        metadata = importlib.metadata.metadata("managed-store")
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path
        return {}
    declared = {"Python": metadata.get("Requires-Python") or ""}
    for text in metadata.get_all("Requires-Dist") or ():
        requirement = Requirement(text)
        declared.setdefault(requirement.name, str(requirement.specifier))
    return {name: declared[name] for name in PACKAGES if name in declared}


def examine_versions(
    versions: Mapping[str, str | None], supported: Mapping[str, str], facts: Sequence[Fact] = FACTS
) -> list[Package]:
    """Say what is known of these versions.

    Parameters
    ----------
    versions : mapping
        Name → version; None for what is not installed.
    supported : mapping
        Name → specifier of what this package works with.
    facts : sequence of Fact
        What is known.

    Returns
    -------
    list of Package
        One for each of `versions`.
    """
    return [_examined(name, version, supported.get(name, ""), facts) for name, version in versions.items()]


def _examined(name: str, version: str | None, supported: str, facts: Sequence[Fact]) -> Package:
    parsed = _parsed(version)
    if parsed is None:  # not installed, or built in a way that gives no proper version
        return Package(name, version, supported, True, (), ())
    about = [fact for fact in facts if fact.package == name]
    known = tuple(fact for fact in about if _contains(fact.affects, parsed))
    mended = tuple(
        fact for fact in about if fact.fixed_in is not None and fact not in known and parsed >= Version(fact.fixed_in)
    )
    return Package(name, version, supported, _contains(supported, parsed), known, mended)


def _contains(specifier: str, version: Version) -> bool:
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _parsed(version: str | None) -> Version | None:
    try:
        return None if version is None else Version(version)
    except InvalidVersion:
        return None
