"""Every public docstring is as numpydoc has it: ``python -m tests.docstrings``, with numpydoc of the extra ``dev``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator

from numpydoc.validate import validate

import managed_store

# What is not asked for.
_NOT_ASKED = {
    "ES01": "a summary may say it all",
    "EX01": "what is used in a moment needs no example",
    "SA01": "there is a reference, with a search",
}

# Classes whose users never call them: functions do.
_MADE_BY_FUNCTIONS = ("managed_store.api.Opening",)


def public_names() -> Iterator[str]:
    """Everything that is exported, and the public members of classes, each once."""
    seen: set[int] = set()
    submodules = (f"managed_store.{found.name}" for found in pkgutil.iter_modules(managed_store.__path__))
    for module_name in ["managed_store", *(name for name in submodules if "._" not in name)]:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            exported = getattr(module, name)
            if name.startswith("__") or id(exported) in seen:
                continue
            seen.add(id(exported))
            yield f"{module_name}.{name}"
            if inspect.isclass(exported):
                for member in _members_of(exported):
                    yield f"{module_name}.{name}.{member}"


def _members_of(cls: type) -> Iterator[str]:
    """The methods and properties of a class, and what it inherits within the package and has a docstring there."""
    for base in cls.__mro__:
        for name, value in vars(base).items() if base.__module__.startswith("managed_store") else ():
            is_documented = callable(value) or isinstance(value, classmethod | property | staticmethod)
            if is_documented and (base is cls or value.__doc__) and not name.startswith(("_", "test_")):
                yield name


def faults_of(name: str) -> Iterator[str]:
    """What numpydoc has against the docstring of `name`."""
    found = validate(name)
    for code, message in found["errors"]:
        # One line can say it all; and the fields of a dataclass are attributes, which numpydoc wants once more.
        is_one_line = "\n" not in found["docstring"]
        has_no_parameters = "\nAttributes\n---" in found["docstring"] or name in _MADE_BY_FUNCTIONS
        is_said = {"PR01": is_one_line or has_no_parameters, "RT01": is_one_line}
        if code not in _NOT_ASKED and not is_said.get(code):
            yield f"{name}: {code} {message}"


if __name__ == "__main__":
    names = list(public_names())
    faults = [fault for name in names for fault in faults_of(name)]
    print("\n".join(faults) or f"{len(names)} docstrings are as they should be.")
    sys.exit(bool(faults))
