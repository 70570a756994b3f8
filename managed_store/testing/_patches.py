"""What is put in the place of methods while a check is on, of classes that are imported later too; and taken out.

A method that is only to be noticed gets a descriptor: it notes the instance when the method is looked up, and hands
out the original. So no frame of this package is on the stack while the method runs, and the warnings and
tracebacks of the program stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Noticed", "Patches"]

_NOTHING = object()


class Noticed:
    """Stands in for a method: calls `note` with the instance, and hands out the original.

    Parameters
    ----------
    original : object
        The method, as it lies in the class.
    note : callable
        Takes the instance. Must not raise.
    """

    def __init__(self, original: Any, note: Callable[[Any], object]) -> None:
        self._original = original
        self._note = note

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:  # `Base.__init__(self)`, which is seen only as it is called
            return self
        self._note(instance)
        return self._original.__get__(instance, owner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    # What looks into the class finds a function, as before: unittest.mock with `autospec` takes it by its kind.

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            self._note(args[0])
        return self._original(*args, **kwargs)


class Patches:
    """Every change that was made, so that it can be undone."""

    def __init__(self) -> None:
        self._done: list[tuple[type | ModuleType, str, Any, Any]] = []
        self._finder = _Finder()

    def replace(self, owner: type, name: str, replacing: Callable[[Any], Any]) -> None:
        """Put ``replacing(original)`` in the place of a method, or of None where the class has no such method."""
        original = next((vars(cls)[name] for cls in owner.__mro__ if name in vars(cls)), None)
        replacement = replacing(original)
        self._done.append((owner, name, vars(owner).get(name, _NOTHING), replacement))
        setattr(owner, name, replacement)

    def set(self, module: ModuleType, name: str, value: Any) -> None:
        """Put a value in the place of one of a module."""
        self._done.append((module, name, vars(module)[name], value))
        setattr(module, name, value)

    def notice(self, owner: type, name: str, note: Callable[[Any], object]) -> None:
        """Call `note` with each instance whose method `name` is about to be called."""
        self.replace(owner, name, lambda original: Noticed(original, note))

    def when_imported(self, module: str, patch: Callable[[ModuleType], None]) -> None:
        """Call `patch` with the module: now if it has been imported, else as soon as it is."""
        self._finder.wanted.setdefault(module, []).append(patch)
        if module in sys.modules:
            self._finder.found_already.add(module)
            self.catch_up()

    def catch_up(self) -> None:
        """Look whether modules have been imported by now that others were just importing when they were asked for."""
        self._finder.catch_up()

    def begin(self) -> None:
        """Look out for the imports that are waited for."""
        if self._finder.wanted:
            sys.meta_path.insert(0, self._finder)

    def undo(self) -> None:
        """Take out all that was put in. What others have replaced since is theirs, and passes by what is ours."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._finder.wanted.clear()
        self._finder.found_already.clear()
        while self._done:
            owner, name, before, replacement = self._done.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if before is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


class _Finder:
    """Finds the modules that are waited for with the finders of others, and learns when they have been loaded."""

    def __init__(self) -> None:
        self.wanted: dict[str, list[Callable[[ModuleType], None]]] = {}
        self.found_already: set[str] = set()
        """Of those: what is past being found, and may still be on its way to be loaded."""

    def catch_up(self) -> None:
        for name in tuple(self.found_already):
            module = sys.modules.get(name)
            if module is None:  # its import has failed
                self.found_already.discard(name)
            elif not getattr(module.__spec__, "_initializing", False):
                self.found_already.discard(name)
                self.loaded(module)

    def loaded(self, module: ModuleType) -> None:
        for patch in self.wanted.pop(module.__name__, ()):
            patch(module)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self.catch_up()
        if name not in self.wanted:
            return None
        for finder in tuple(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Stands in for a module's loader until it has been executed."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.loaded(module)
