"""Running a program in this process as ``python SCRIPT`` and ``python -m MODULE`` run it.

`runpy` would take the program's module away again when main has ended, and with it all that its globals hold: what is
asked here is what is open then.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import pkgutil
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType

__all__ = ["Ended", "Program", "ProgramError", "module_program", "run", "script_program", "wait_for_threads"]


class ProgramError(Exception):
    """There is no such program.

    Parameters
    ----------
    message : str
        What Python says of it.
    code : int
        The exit code that Python ends with then.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Program:
    """A program that has been found.

    Attributes
    ----------
    source : str
        The file to compile; empty where there is a `spec`.
    spec : ModuleSpec or None
        What the import system knows of it: of a module, or of the ``__main__`` of a folder or archive.
    name : str
        What ``sys.argv[0]`` says.
    """

    source: str
    spec: ModuleSpec | None
    name: str


@dataclass(frozen=True)
class Ended:
    """How a program has ended.

    Attributes
    ----------
    code : int
        Its exit code.
    interrupted : bool
        Whether by Ctrl-C: then Python ends itself by the signal, after all else.
    error : BaseException or None
        What it was left with. It keeps alive what the frames hold, as it does in Python until the very end.
    """

    code: int
    interrupted: bool = False
    error: BaseException | None = None


def script_program(path: str) -> Program:
    """Find a script, or a folder or archive with a ``__main__.py``; and let it import what lies beside it."""
    importer = pkgutil.get_importer(path) if os.path.exists(path) else None
    if importer is not None and (os.path.isdir(path) or type(importer).__name__ == "zipimporter"):
        whole = os.path.join(os.getcwd(), path)
        _set_first_path(whole)
        importer = pkgutil.get_importer(whole)
        spec = None if importer is None else importer.find_spec("__main__", None)
        if spec is None:
            raise ProgramError(f"can't find '__main__' module in {path!r}", 1)
        return Program("", spec, path)
    if not os.path.isfile(path):
        raise ProgramError(f"can't open file {os.path.abspath(path)!r}: no such file", 2)
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    return Program(path, None, path)


def module_program(name: str) -> Program:
    """Find a module, or the ``__main__`` of a package, from the current folder on."""
    _set_first_path(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
            if spec is None:
                raise ProgramError(f"No module named {name}.__main__; {name!r} is a package", 1)
    except (ImportError, ValueError) as error:
        raise ProgramError(f"Error while finding {name!r} ({type(error).__name__}: {error})", 1) from None
    if spec is None or not hasattr(spec.loader, "get_code"):
        raise ProgramError(f"No module named {name}", 1)
    return Program("", spec, spec.origin or name)


def run(program: Program, arguments: Sequence[str]) -> Ended:
    """Run a program as the main module until main has ended, however it does."""
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins  # the module: elsewhere than in the main module it is its dictionary
    sys.modules["__main__"] = main
    sys.argv = [program.name, *arguments]
    code: CodeType | None = None
    try:
        code = _compiled(program, main)
        exec(code, main.__dict__)  # noqa: S102  # it is what the user has asked for
    except SystemExit as error:
        return Ended(_exit_code(error), error=error)
    except BaseException as error:
        place = error.__traceback__
        while place is not None and place.tb_frame.f_code is not code:  # the frames of this file
            place = place.tb_next
        sys.excepthook(type(error), error.with_traceback(place), place)
        return Ended(1, isinstance(error, KeyboardInterrupt), error)
    return Ended(0)


def wait_for_threads() -> None:
    """Wait for threads that are no daemons, and let idle executors go: what Python does before any exit hook is run.

    Python calls the same function again when it ends, which then finds nothing to do.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    except KeyboardInterrupt:
        traceback.print_exc()


def _compiled(program: Program, main: ModuleType) -> CodeType:
    main.__spec__ = program.spec
    if program.spec is None:
        path = os.path.join(os.getcwd(), program.source)
        main.__file__ = path
        main.__loader__ = SourceFileLoader("__main__", path)
        main.__dict__["__cached__"] = None
        with io.open_code(path) as file:
            content = file.read()
        return compile(content, path, "exec", dont_inherit=True)
    assert program.spec.loader is not None
    main.__file__ = program.spec.origin
    main.__loader__ = program.spec.loader
    main.__package__ = program.spec.parent
    main.__dict__["__cached__"] = program.spec.cached
    code: CodeType | None = program.spec.loader.get_code(program.spec.name)  # type: ignore[attr-defined]
    if code is None:
        raise ImportError(f"No code object available for {program.spec.name}")
    return code


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    print(error.code, file=sys.stderr)
    return 1


def _set_first_path(path: str) -> None:
    """Put the program's folder where Python has put that of the command; with ``-P`` it has put none."""
    if not sys.flags.safe_path:
        sys.path[0] = path
