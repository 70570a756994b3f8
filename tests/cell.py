"""Cells of the leak matrix: use a store in some ways, each in a process of its own, and report what is left open.

``python -X dev -W error -m tests.cell CONFIG`` takes a Python literal, as `tests.matrix.run_cells` does it. It imports
all that is needed, and then forks a process for each use: as fresh as one started anew, in a fraction of the time. It
prints one JSON line: for each use what the process held more of afterwards than before, the error that it ended with,
what was written to stderr, and the exit code. ``together`` makes all uses in one process instead, one after another.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import fsspec
import fsspec.asyn
import numpy.testing  # noqa: F401 - numpy imports it when it is first used, which would be in each child
import uvloop
from zarr.core.sync import sync

from tests import uses
from tests.botocore_files import keep_botocore_files
from tests.footprint import NOTHING, Footprint
from tests.uses import CLOSES_IN_BACKGROUND, USES, Subject

# Seconds after which a use that hangs is ended, with the stacks of its threads on stderr; plain zarr hangs often.
_LONGEST, _LONGEST_IN_PLAIN_ZARR = 30.0, 10.0

# Seconds that the background may take to close what was forgotten.
_BACKGROUND = 2.0


def main() -> None:
    """Run the configured uses; in a forked process, return to end it as any program ends."""
    config = ast.literal_eval(sys.argv[1])
    import_backends(config["url"], config["options"])
    if config["memory"]:
        fsspec.filesystem("memory").pipe(config["memory"])
    groups = [config["uses"]] if config["together"] else [[name] for name in config["uses"]]
    report: dict[str, Any] = {}
    sys.stdout.flush()
    for number, group in enumerate(groups):
        folder = Path(tempfile.gettempdir()) / f"cell-{number}"
        (folder / "temporary").mkdir(parents=True)
        process = os.fork()
        if process == 0:
            run_uses(
                Subject(config["url"], config["options"], plain=config["plain"], in_cycles=config["in_cycles"]),
                group,
                folder,
            )
            return
        _, status = os.waitpid(process, 0)
        written = (folder / "report").read_text() if (folder / "report").exists() else "{}"
        stderr = (folder / "stderr").read_text()
        for name in group:
            end = "not back in time" if "\nTimeout (" in f"\n{stderr}" else "the process ended before it could tell"
            outcome = json.loads(written).get(name, {"grown": None, "error": end})
            report[name] = {**outcome, "stderr": stderr, "code": os.waitstatus_to_exitcode(status)}
    print(json.dumps(report), flush=True)


def run_uses(subject: Subject, names: list[str], folder: Path) -> None:
    """Make these uses, one after the other, with stderr and temporary files in `folder`; the report goes there too."""
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    longest = _LONGEST_IN_PLAIN_ZARR if subject.plain else _LONGEST
    faulthandler.dump_traceback_later(longest * len(names), exit=True)
    tempfile.tempdir = str(folder / "temporary")
    os.environ["TMPDIR"] = tempfile.tempdir
    # fsspec's MMapCache (blockcache) drops the file that it has mapped; nobody else opens files in this way.
    warnings.filterwarnings("ignore", "unclosed file <_io.BufferedRandom", ResourceWarning)
    sync(asyncio.sleep(0))  # zarr's loop and its thread belong to zarr
    fsspec.asyn.get_loop()  # and fsspec's to fsspec
    uvloop.new_event_loop().close()  # libuv keeps a pipe for the whole process
    if "grpc" in sys.modules:
        start_grpc()
    gc.collect()
    gc.disable()  # nothing may depend on a collection
    uses.kept = []
    report: dict[str, Any] = {}
    for name in names:
        before = footprint()
        outcome: dict[str, Any] = {"error": None}
        try:
            USES[name](subject)
        except Exception as error:
            outcome = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        outcome["grown"] = before.grown_by(footprint())
        deadline = time.monotonic() + _BACKGROUND
        in_background = name in CLOSES_IN_BACKGROUND and not subject.plain  # which closes nothing
        while in_background and outcome["grown"] != NOTHING and time.monotonic() < deadline:
            time.sleep(0.01)
            outcome["grown"] = before.grown_by(footprint())
        report[name] = outcome
    (folder / "report").write_text(json.dumps(report))


def footprint() -> Footprint:
    """Count what is open, without a garbage collection."""
    if "grpc" in sys.modules:  # its core closes sockets on threads of its own, a moment later
        time.sleep(0.05)
    return Footprint.now(tempfile.gettempdir())


def import_backends(url: str, options: dict[str, Any]) -> None:
    """Import what the first use would; nothing of it may start a thread, for the sake of the fork."""
    for part in [*url.split("::"), *options, str(options.get("remote_protocol", ""))]:
        protocol = part.partition("://")[0]
        if protocol in fsspec.available_protocols():
            fsspec.get_filesystem_class(protocol)
    if url.startswith("gs") and fsspec.get_filesystem_class("gs").__name__ == "ExtendedGcsFileSystem":
        import grpc  # noqa: F401
    if "botocore" in sys.modules:
        from botocore.session import get_session

        keep_botocore_files()
        # Never used: it has opened nothing. With keys, or it would ask the cloud machine that it may be running on.
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        get_session().create_client("s3", region_name="us-east-1", **keys)


def start_grpc() -> None:
    """Start gRPC's poller, and keep it.

    The poller serves the whole process: it starts with the first channel, and stops when the last one is collected.
    An idle channel that lives as long as this program keeps it out of the figures.
    """
    import grpc

    async def keep_a_channel() -> None:
        kept.append(grpc.aio.insecure_channel("127.0.0.1:1"))  # idle: one that has failed would go on trying
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await channel.unary_unary("/any/method")(b"", timeout=0.2)

    sync(keep_a_channel())


kept: list[Any] = []


if __name__ == "__main__":
    main()
