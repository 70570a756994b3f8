"""Closers of third parties: how they are registered and found, and that a store really goes through them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.http import HTTPFileSystem
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem
from zarr.core.buffer import default_buffer_prototype

from managed_store import ArgumentError, ArgumentTypeError, Closer, register_closer
from managed_store._closers import _registry as registry
from managed_store._closers import closer_for
from managed_store._closers.http import HttpCloser
from managed_store._closers.unknown import UnknownCloser

PROTOTYPE = default_buffer_prototype()


class ThirdPartyFileSystem(HTTPFileSystem):
    """A filesystem of somebody else: it has a protocol and a class of its own, and speaks HTTP."""

    protocol = "thirdparty"


class DerivedFileSystem(ThirdPartyFileSystem):
    """A subclass that says nothing about itself."""


class UnrelatedFileSystem(AbstractFileSystem):
    """A filesystem that nobody has registered anything for."""

    protocol = ("unrelated", "also-unrelated")


class FirstCloser(HttpCloser):
    """One closer."""


class SecondCloser(HttpCloser):
    """Another one."""


def make(cls: Any) -> Any:
    """A private filesystem of the class."""
    return cls(skip_instance_cache=True)


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    fsspec.register_implementation("thirdparty", ThirdPartyFileSystem, clobber=True)
    yield
    _registry.pop("thirdparty")


@pytest.mark.parametrize("name", ["thirdparty", ThirdPartyFileSystem, f"{__name__}.ThirdPartyFileSystem"])
def test_a_closer_is_found_by_what_it_was_registered_for(name: str | type) -> None:
    """A protocol, a class, and the qualified name of a class; subclasses are served too."""
    assert type(closer_for(make(ThirdPartyFileSystem))) is HttpCloser  # of its parent
    register_closer(name, FirstCloser)
    assert type(closer_for(make(ThirdPartyFileSystem))) is FirstCloser
    assert type(closer_for(make(DerivedFileSystem))) is FirstCloser
    assert type(closer_for(make(HTTPFileSystem))) is HttpCloser


@pytest.mark.parametrize("protocol", ["unrelated", "also-unrelated"])
def test_each_protocol_of_a_class_counts(protocol: str) -> None:
    """A class may have several protocols."""
    assert type(closer_for(make(UnrelatedFileSystem))) is UnknownCloser
    register_closer(protocol, FirstCloser)
    assert type(closer_for(make(UnrelatedFileSystem))) is FirstCloser


def test_the_nearest_class_wins() -> None:
    """A subclass's own closer goes before its parent's, in whatever order they were registered."""
    register_closer(DerivedFileSystem, SecondCloser)
    register_closer(ThirdPartyFileSystem, FirstCloser)
    register_closer(HTTPFileSystem, HttpCloser)
    assert type(closer_for(make(DerivedFileSystem))) is SecondCloser
    assert type(closer_for(make(ThirdPartyFileSystem))) is FirstCloser


def test_a_class_goes_before_its_name_and_its_protocol() -> None:
    """What is more particular wins, in whatever order it was registered."""
    register_closer(ThirdPartyFileSystem, FirstCloser)
    register_closer(f"{__name__}.ThirdPartyFileSystem", SecondCloser)
    register_closer("thirdparty", SecondCloser)
    assert type(closer_for(make(ThirdPartyFileSystem))) is FirstCloser


def test_what_is_registered_goes_before_what_this_package_has() -> None:
    """A user may replace the closer of a backend that this package knows; the last registration counts."""
    register_closer("https", FirstCloser)
    assert type(closer_for(make(HTTPFileSystem))) is FirstCloser
    register_closer("https", SecondCloser)
    assert type(closer_for(make(HTTPFileSystem))) is SecondCloser


def test_what_is_registered_for_a_protocol_serves_all_that_inherit_it() -> None:
    """gcsfs has two classes for gs, of which one has no protocol of its own."""
    from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]

    names = {"__module__": "gcsfs.extended_gcsfs", "__qualname__": "ExtendedGcsFileSystem"}
    extended = type("ExtendedGcsFileSystem", (GCSFileSystem,), names)
    assert registry._factory_for(extended).__name__ == "ExtendedGcsCloser"  # type: ignore[attr-defined]
    register_closer("gs", FirstCloser)
    assert registry._factory_for(GCSFileSystem) is FirstCloser
    assert registry._factory_for(extended) is FirstCloser


def test_a_closer_may_be_any_function() -> None:
    """What is registered is called with the filesystem."""
    register_closer("thirdparty", lambda filesystem: SecondCloser(filesystem))
    filesystem = make(ThirdPartyFileSystem)
    closer = closer_for(filesystem)
    assert type(closer) is SecondCloser
    assert closer.filesystem is filesystem


@pytest.mark.parametrize(
    ("name", "closer", "error", "message"),
    [
        ("", Closer, ArgumentError, r"protocol_or_class must be a protocol, such as 'myfs'; got an empty string"),
        ("  ", Closer, ArgumentError, r"got an empty string"),
        (3, Closer, ArgumentTypeError, r"protocol_or_class must be .* or a filesystem class; got int"),
        (None, Closer, ArgumentTypeError, r"got NoneType"),
        (int, Closer, ArgumentTypeError, r"subclass of fsspec.spec.AbstractFileSystem; got the class int"),
        (Closer, Closer, ArgumentTypeError, r"got the class Closer"),
        (
            "myfs",
            None,
            ArgumentTypeError,
            r"closer must be a subclass of managed_store.Closer, or a function .* NoneTy",
        ),
        ("myfs", "closer", ArgumentTypeError, r"closer must be .* got str"),
        ("myfs", object, ArgumentTypeError, r"closer must be .* got the class object"),
    ],
)
def test_bad_input(name: Any, closer: Any, error: type[Exception], message: str) -> None:
    """The message names the argument, what was given and what would work; nothing is registered."""
    with pytest.raises(error, match=message):
        register_closer(name, closer)
    assert name not in registry._registered


def run_python(code: str, *, path: Path | None = None) -> Any:
    """Run a program of its own, and give what it printed as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(path or ""), os.getcwd()]))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=environment, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_registering_imports_no_backend() -> None:
    """Neither fsspec's implementations nor the backends are imported, also where they are named."""
    imported = run_python("""
        import json, sys
        from managed_store import Closer, register_closer
        register_closer("gs", Closer)
        register_closer("gcsfs.core.GCSFileSystem", Closer)
        register_closer("not_installed.at_all.FileSystem", Closer)
        names = ("aiohttp", "gcsfs", "s3fs", "adlfs", "zarr", "paramiko", "requests")
        print(json.dumps([name for name in names if name in sys.modules]))
    """)
    assert imported == []


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """A folder with an installed distribution that has a filesystem, and three closers as entry points."""
    (tmp_path / "their_package.py").write_text(
        textwrap.dedent("""
            from fsspec.implementations.http import HTTPFileSystem
            from managed_store import Closer

            class TheirFileSystem(HTTPFileSystem):
                protocol = "theirs"

            class OtherFileSystem(HTTPFileSystem):
                protocol = "other"

            class DerivedFileSystem(TheirFileSystem):
                pass
        """)
    )
    (tmp_path / "their_closers.py").write_text(
        "from managed_store import Closer\nclass A(Closer): pass\nclass B(Closer): pass\nclass C(Closer): pass\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "RECORD").write_text("")
    (info / "entry_points.txt").write_text(
        "[managed_store.closers]\ntheirs = their_closers:A\ntheir_package.OtherFileSystem = their_closers:B\n"
        "memory = their_closers:C\n"
    )
    return tmp_path


def test_entry_points_of_installed_packages(distribution: Path) -> None:
    """By protocol and by qualified name; after what was registered by hand and this package's own; lazily."""
    found = run_python(
        """
        import json, sys
        from fsspec.implementations.http import HTTPFileSystem
        from fsspec.implementations.memory import MemoryFileSystem
        import managed_store
        from managed_store._closers import closer_for
        import their_package
        def name_of(cls):
            return type(closer_for(cls(skip_instance_cache=True))).__name__
        found = {"http": name_of(HTTPFileSystem), "loaded early": "their_closers" in sys.modules}
        for cls in (their_package.TheirFileSystem, their_package.OtherFileSystem, their_package.DerivedFileSystem):
            found[cls.__name__] = name_of(cls)
        found["memory"] = name_of(MemoryFileSystem)
        class Mine(managed_store.Closer): pass
        managed_store.register_closer("theirs", Mine)
        found["registered"] = name_of(their_package.TheirFileSystem)
        found["registered, derived"] = name_of(their_package.DerivedFileSystem)
        print(json.dumps(found))
        """,
        path=distribution,
    )
    assert found == {
        "http": "HttpCloser", "loaded early": False, "TheirFileSystem": "A", "OtherFileSystem": "B",
        "DerivedFileSystem": "A", "memory": "Closer", "registered": "Mine", "registered, derived": "Mine",
    }  # fmt: skip


def test_an_entry_point_that_cannot_be_loaded_breaks_only_its_own(distribution: Path) -> None:
    """A broken package says so when its filesystem is used, and others work."""
    info = distribution / "their_package-1.0.dist-info" / "entry_points.txt"
    info.write_text("[managed_store.closers]\ntheirs = missing_module:A\n")
    found = run_python(
        """
        import json
        import fsspec, their_package
        from zarr.core.sync import sync
        from managed_store import ManagedStore, StoreOpenError
        fsspec.register_implementation("theirs", their_package.TheirFileSystem)
        with ManagedStore("memory://a") as store:
            found = [sync(store.exists("a"))]
        try:
            with ManagedStore("theirs://host/a") as store:
                sync(store.exists("a"))
        except Exception as error:
            found += [type(error).__name__, repr(error.__cause__ or error)]
        print(json.dumps(found))
        """,
        path=distribution,
    )
    assert found[0] is False
    assert found[1] == "StoreOpenError"
    assert "missing_module" in found[2]
