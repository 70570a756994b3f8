"""What is known of how each release handles sessions: data, from public threads and from trying the releases."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FACTS", "Fact"]

_ZARR = "https://github.com/zarr-developers/zarr-python/issues/"
_FSSPEC = "https://github.com/fsspec/filesystem_spec/issues/"
_GCSFS = "https://github.com/fsspec/gcsfs/issues/"
_S3FS = "https://github.com/fsspec/s3fs/issues/"
_ADLFS = "https://github.com/fsspec/adlfs/issues/"
_ZENML = "https://github.com/zenml-io/zenml/issues/"

_CLOSED = "ManagedStore closes it"


@dataclass(frozen=True)
class Fact:
    """One fault of some releases of a package.

    Attributes
    ----------
    package : str
        Its name on PyPI, or ``"Python"``.
    affects : str
        Which versions, as a specifier (``">=2026.2.0,<2026.6.0"``); empty for every release so far.
    symptom : str
        What a program shows that uses zarr and fsspec alone.
    remedy : str
        What to do on an affected version.
    threads : tuple of str
        The addresses of public threads.
    fixed_in : str or None
        The first release without it, if there is one.
    """

    package: str
    affects: str
    symptom: str
    remedy: str
    threads: tuple[str, ...]
    fixed_in: str | None = None

    @property
    def asks_for_upgrade(self) -> bool:
        """Whether a newer release is the remedy."""
        return self.remedy.startswith("upgrade")


FACTS: tuple[Fact, ...] = (
    Fact(
        "Python",
        "<3.14",
        "multiprocessing forks on Linux by default: a child inherits sessions whose event loop does not run there",
        "set_start_method('forkserver'); a ManagedStore opens sessions of its own in the child",
        (f"{_ZARR}2812", f"{_FSSPEC}835"),
        fixed_in="3.14",
    ),
    Fact(
        "zarr",
        "",
        "closing a store leaves the session of its filesystem open: nothing in zarr closes one",
        _CLOSED,
        (f"{_ZARR}2674", f"{_ZARR}4003", f"{_ZARR}4165"),
    ),
    Fact(
        "zarr",
        "",
        "stores with the same options share one filesystem, on whichever event loop used it first: a second "
        "asyncio.run fails, and so does mixing the synchronous and the asynchronous API",
        "ManagedStore has a filesystem for each event loop",
        (f"{_ZARR}2878", f"{_ZARR}2909", f"{_ZARR}1805"),
    ),
    Fact(
        "zarr",
        "",
        "a store that was closed opens itself again when it is used",
        "a ManagedStore that was closed raises StoreClosedError",
        (f"{_ZARR}2338",),
    ),
    Fact(
        "zarr",
        "<3.0.3",
        "the first use in a forked child hangs: it waits for the parent's event loop",
        "upgrade",
        (f"{_ZARR}2812",),
        fixed_in="3.0.3",
    ),
    Fact(
        "fsspec",
        "",
        "every filesystem stays in a cache for good, one for each set of options (and each thread, where it is "
        "asynchronous): sockets grow in number with rotating credentials and with threads",
        "ManagedStore's filesystems are in no cache",
        (f"{_ZENML}2802", f"{_FSSPEC}1930", f"{_FSSPEC}2020"),
    ),
    Fact(
        "fsspec",
        "<2026.6.0",
        "each thread gets a filesystem of its own where that is synchronous, too",
        "upgrade",
        (f"{_FSSPEC}2020",),
        fixed_in="2026.6.0",
    ),
    Fact(
        "fsspec",
        "",
        "in a chained URL (reference::, simplecache::, dir::) all filesystems must be asynchronous, or none",
        "ManagedStore passes that on to each of them",
        (f"{_ZARR}2946", f"{_ZARR}3323", f"{_FSSPEC}1795"),
    ),
    Fact(
        "fsspec",
        "",
        "late in the interpreter's end a call may wait for ever for fsspec's IO thread, which is dead by then",
        "ManagedStore closes before that, within its timeout",
        (f"{_FSSPEC}1723",),
    ),
    Fact(
        "fsspec",
        "<2025.3.1",
        "'Unclosed client session' at the interpreter's end; newer releases are silent, and close nothing either",
        _CLOSED,
        (f"{_ZARR}2674",),
        fixed_in="2025.3.1",
    ),
    Fact(
        "fsspec",
        "<2025.3.1",
        "a forked child goes on with the parent's event loop",
        "upgrade",
        (f"{_FSSPEC}835",),
        fixed_in="2025.3.1",
    ),
    Fact(
        "aiohttp",
        "",
        "a session must be closed by awaiting that on its own event loop: one that is collected says 'Unclosed client "
        "session', one that lives until the interpreter ends says nothing, and both leave their sockets open",
        _CLOSED,
        (f"{_ZARR}2674", f"{_FSSPEC}1506"),
    ),
    Fact(
        "gcsfs",
        "",
        "a finalizer closes the session on whatever thread and loop it finds: 'attached to a different loop' and 'Task "
        "was destroyed but it is pending' at exit, beside any synchronous use of fsspec",
        "ManagedStore closes it before, on its own loop",
        (f"{_ZARR}3487", "https://github.com/TGSAI/mdio-python/issues/613"),
    ),
    Fact(
        "gcsfs",
        "",
        "closing a filesystem that was never used raises 'Please await _connect*'",
        "closing a ManagedStore that was never used does nothing",
        (f"{_GCSFS}519", f"{_GCSFS}692"),
    ),
    Fact(
        "gcsfs",
        "<2025.2.0",
        "'Unclosed client session' and 'Unclosed connector' at exit",
        "upgrade",
        (f"{_ZARR}2674", f"{_GCSFS}657"),
        fixed_in="2025.2.0",
    ),
    Fact(
        "gcsfs",
        "<2024.3.1",
        "the finalizer raises RuntimeError because it closes on the wrong loop",
        "upgrade",
        (f"{_GCSFS}606",),
        fixed_in="2024.3.1",
    ),
    Fact(
        "gcsfs",
        "<2026.8.2",
        "an open file that is collected on the IO thread raises NotImplementedError, or hangs at exit",
        "upgrade",
        (f"{_GCSFS}1014", f"{_GCSFS}1037"),
        fixed_in="2026.8.2",
    ),
    Fact(
        "s3fs",
        "",
        "an asynchronous filesystem, as zarr uses, has no finalizer: its client stays open until the process ends",
        _CLOSED,
        (f"{_S3FS}943", f"{_ZARR}2901"),
    ),
    Fact(
        "s3fs",
        "<2026.2.0",
        "after its session was closed the cached filesystem goes on using it: the second run fails",
        "upgrade",
        (f"{_S3FS}1001", f"{_S3FS}1002"),
        fixed_in="2026.2.0",
    ),
    Fact(
        "s3fs",
        ">=2026.2.0,<2026.6.0",
        "a new session is made for each call, and the one before is left open",
        "upgrade",
        (f"{_S3FS}1019",),
        fixed_in="2026.6.0",
    ),
    Fact(
        "s3fs",
        "<2026.6.0",
        "the first requests, which zarr sends together, build a client each, and all but one are lost open",
        "upgrade; ManagedStore opens the session before any request",
        (f"{_S3FS}1025", f"{_S3FS}854"),
        fixed_in="2026.6.0",
    ),
    Fact(
        "adlfs",
        "",
        "a finalizer keeps the filesystem alive for ever, and can only raise 'Loop is not running' at exit",
        "ManagedStore closes the client and retires the finalizer",
        (f"{_ZARR}4221", f"{_ZARR}4369", f"{_ADLFS}296"),
    ),
    Fact(
        "adlfs",
        "<2026.4.0",
        "closing fails with a credential that is a string, a synchronous object or None",
        "upgrade",
        (f"{_ADLFS}346", f"{_ADLFS}431", f"{_ADLFS}518"),
        fixed_in="2026.4.0",
    ),
    Fact(
        "aiobotocore",
        "<3.10.0",
        "closing a client a second time raises",
        "upgrade",
        (f"{_ZENML}4586", f"{_ZENML}4593"),
        fixed_in="3.10.0",
    ),
)
