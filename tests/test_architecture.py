"""The house: which file may import which, and what the package exports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import managed_store

PACKAGE = Path(managed_store.__file__).parent

# From the top down. A file imports only from floors below its own.
FLOORS = [
    {"__main__"},
    {"cli", "pytest_plugin"},
    {"_commands"},
    {"_doctor"},
    {"testing", "dask"},
    {"_demo", "_demo_server", "_info", "_running", "_sampling"},
    {"xarray"},
    {"_zarr_engine"},
    {"api", "pool"},
    {"store"},
    {"_handle"},
    {"_closable"},
    {"_guarded", "_process"},
    {"_datasets"},
    {"_leases", "_leaving"},
    {"_pooling"},
    {"_idling", "_owners"},
    {"_closing"},
    {"_sessions"},
    {"_holding", "_requests"},
    {"_building", "_wrapped", "_arguments", "_twins", "_sharing"},
    {"_recipe", "_caches", "_abandoned"},
    {"_levels"},
    {"_chain", "_protocols", "_threaded", "_closers", "_borrowed", "_loop_end"},
    {
        "_lifecycle",
        "_zarr_loop",
        "_threads",
        "_awaiting",
        "_redaction",
        "_search",
        "_failures",
        "_never_closed",
        "_notes",
        "_descriptors",
        "_kinds",
        "_once",
        "_options",
        "_statistics",
    },
    {"errors"},
]

# The package itself loads its names when they are asked for, so importing it from below is importing nothing.
LAZY = "__init__"

# What the runtime imports inside functions only, because it is heavy or because the package is being imported.
ALLOWED_INSIDE = {("_demo", "_demo_server")}


def module_of(path: Path) -> str:
    """The name of the module in the house: a subpackage counts as one."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "managed_store":
            parts = (node.module or "").split(".")
            found.add(parts[1] if len(parts) > 1 else LAZY)
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("managed_store."))
    return found


def floor(module: str) -> int:
    """How far down a module lives."""
    return next(index for index, modules in enumerate(FLOORS) if module in modules)


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if module_of(path) != LAZY)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_floors_below(path: Path) -> None:
    """One-way imports; a new file must be given a floor."""
    module = module_of(path)
    for imported in imports(path) - {LAZY, module}:
        if (module, imported) not in ALLOWED_INSIDE:
            assert floor(imported) > floor(module), f"{module} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_zarr_loop_is_touched_in_one_place(path: Path) -> None:
    """Only `_zarr_loop` knows zarr's private event-loop API; the demonstration uses zarr's `sync` as a user would."""
    if module_of(path) not in ("_zarr_loop", "_demo"):
        assert "zarr.core.sync" not in path.read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_has_the_lock_of_a_cached_property(path: Path) -> None:
    """Until Python 3.12 a forked child waits for it, should another thread of its parent have held it."""
    assert module_of(path) == "_once" or "cached_property" not in path.read_text()


def test_exports_are_what_all_says() -> None:
    """Every name in `__all__` is there, and nothing else is public."""
    for name in managed_store.__all__:
        assert getattr(managed_store, name) is not None
    assert managed_store.ManagedStore is managed_store.ManagedFSSpecStore
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = managed_store.nothing  # type: ignore[attr-defined]


def test_every_exception_is_in_the_tree() -> None:
    """Every exception derives from ManagedStoreError, and none can be taken for a missing key."""
    from managed_store import errors

    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, (errors.ManagedStoreError, Warning))
        assert not issubclass(error, (KeyError, OSError))
        assert not issubclass(error, ValueError) or issubclass(error, errors.ArgumentError)
        assert name in (errors.__doc__ or "")
