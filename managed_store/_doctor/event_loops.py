"""Whether the set-up of event loops, threads and processes is sound."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from managed_store._doctor.versions import installed_version

__all__ = ["Finding", "examine_event_loops"]

# Seconds that an IO thread may take to answer.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes
    ----------
    check : str
        What was looked at.
    sound : bool
        Whether that is as it should be.
    found : str
        What was found.
    advice : str
        What to do, or to know, about it; may be empty.
    """

    check: str
    sound: bool
    found: str
    advice: str = ""


def examine_event_loops() -> list[Finding]:
    """Look at the event loops of this process. Starts zarr's and fsspec's IO threads, which are theirs to end.

    Returns
    -------
    list of Finding
        One for each check.
    """
    return [
        _event_loop(),
        _uvloop(),
        _nested(),
        _running(),
        _start_method(),
        *_io_threads(),
    ]


def _event_loop() -> Finding:
    loop = _new_loop()
    kind = f"{type(loop).__module__}.{type(loop).__name__}"
    known = kind.startswith(("asyncio.", "uvloop.", "winloop."))
    advice = "" if known else "only the loops of asyncio and uvloop have been tried"
    return Finding("event loop", True, f"a new one is {kind}", advice)


def _new_loop() -> asyncio.AbstractEventLoop:
    """One as `asyncio.run` would make it, closed already."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def _uvloop() -> Finding:
    version = installed_version("uvloop")
    if version is None:
        return Finding("uvloop", True, "not installed")
    used = "uvloop" in type(_new_loop()).__module__
    return Finding(
        "uvloop", True, f"{version} is installed, and {'makes' if used else 'does not make'} new event loops"
    )


def _nested() -> Finding:
    if hasattr(asyncio, "_nest_patched"):
        return Finding(
            "nested loops",
            False,
            "nest_asyncio is applied",
            "its asyncio.run does not end what runs on a loop before it closes that, so that sessions can only be cut "
            "off; do without it, or leave stores by async with",
        )
    installed = installed_version("nest_asyncio")
    found = "nest_asyncio is not installed" if installed is None else f"nest_asyncio {installed} is not applied"
    return Finding("nested loops", True, found)


def _running() -> Finding:
    if asyncio._get_running_loop() is None:
        return Finding("running loop", True, "none runs on this thread: zarr's synchronous API works on its own")
    return Finding(
        "running loop",
        True,
        "one runs on this thread, as in a notebook",
        "use async with, or close with await aclose()",
    )


def _start_method() -> Finding:
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    others = threading.active_count() - 1
    found = f"{method}, with {others} other thread{'' if others == 1 else 's'} running"
    advice = ""
    if method == "fork":
        advice = (
            "a forked child has no IO threads: a ManagedStore opens sessions of its own there, but what plain zarr or "
            "fsspec had open is dead; prefer set_start_method('forkserver')"
        )
    return Finding("start method", True, found, advice)


def _io_threads() -> Iterator[Finding]:
    for name, ask in (("zarr's IO thread", _ask_zarr), ("fsspec's IO thread", _ask_fsspec)):
        yield _answered(name, ask)


def _ask_zarr() -> None:
    importlib.import_module("managed_store._zarr_loop").run_on_zarr_loop(asyncio.sleep(0))


def _ask_fsspec() -> None:
    asyn = importlib.import_module("fsspec.asyn")
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), asyn.get_loop()).result(_PATIENCE)


def _answered(name: str, ask: Callable[[], None]) -> Finding:
    """Whether an IO thread does what it is asked; asked from a thread of its own, because it may never answer."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ask()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="managed-store-doctor", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if thread.is_alive():
        return Finding(name, False, f"does not answer within {_PATIENCE:.0f} s", "start the process anew")
    if raised:
        return Finding(name, False, f"cannot be asked: {type(raised[0]).__name__}", "see whether the package imports")
    return Finding(name, True, "answers")
