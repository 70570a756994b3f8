"""Whether a protocol is known, and the package that it needs installed: found out without importing a backend."""

from __future__ import annotations

import importlib.util
import re

from fsspec.registry import known_implementations
from fsspec.registry import registry as registered_implementations

from managed_store._redaction import redacted
from managed_store.errors import ArgumentError, MissingPackageError, UnknownProtocolError

__all__ = ["check_protocol"]

# What some of fsspec's own modules import. Every other filesystem is in the package that it needs.
_IMPORTED_BY_FSSPEC = {
    "arrow": "pyarrow",
    "dask": "distributed",
    "dbfs": "requests",
    "gist": "requests",
    "git": "pygit2",
    "github": "requests",
    "jupyter": "requests",
    "libarchive": "libarchive",
    "sftp": "paramiko",
    "smb": "smbclient",
    "webhdfs": "requests",
}

# What pip calls a package, where that is not the name by which it is imported: extras of this distribution, too.
_TO_INSTALL = {
    "adlfs": "'managed-store[azure]'",
    "libarchive": "libarchive-c",
    "s3fs": "'managed-store[s3]'",
    "smbclient": "smbprotocol",
}


def check_protocol(protocol: str, part: str, url: str) -> None:
    """Check that there is a filesystem for a protocol.

    Parameters
    ----------
    protocol : str
        One of those in `url`.
    part : str
        The part of `url` that it is of.
    url : str
        What is to be opened, for messages.

    Raises
    ------
    UnknownProtocolError
        fsspec knows no filesystem for it.
    MissingPackageError
        The package behind it is not installed.
    ArgumentError
        It is a path that begins as a URL does, but for a slash.
    """
    if protocol == "file":
        _check_path(part)
    if protocol in registered_implementations:
        return
    if protocol not in known_implementations:
        # What is none at all may hold a secret, and is not shown.
        named = f" {protocol!r}" if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", protocol) else ""
        raise UnknownProtocolError(
            f"url has the unknown protocol{named} in {redacted(url)!r}. fsspec knows, among others, file, gs, "
            f"http, https, memory and s3; fsspec.register_implementation adds your own."
        )
    package = _package_of(known_implementations[protocol]["class"])
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"url {redacted(url)!r} needs the package {package!r} for its protocol {protocol!r}: "
            f"pip install {_TO_INSTALL.get(package, package)}.",
            name=package,
        )


def _check_path(path: str) -> None:
    """A folder "s3:" would be made for it, and nobody would find in the bucket what was written."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/(?!/)", path)
    if found is not None and found[1] in known_implementations and found[1] not in ("file", "local"):
        raise ArgumentError(
            f"url must have two slashes after its protocol, as in '{found[1]}://…'; got {redacted(path)!r}. "
            f"For a path, write './{found[1]}:/…'."
        )


def _package_of(qualified_name: str) -> str:
    """The package without which a class cannot be imported."""
    package, *modules, _ = qualified_name.split(".")
    return _IMPORTED_BY_FSSPEC.get(modules[-1], package) if package == "fsspec" else package
