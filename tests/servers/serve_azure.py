"""What `azure_server` runs: Azurite as a child of its own, which ends with it.

Azurite has no figures to ask for: a hook in its process (`azurite_hook.cjs`) counts and publishes them.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.servers._child import Announcement, Config, run_child

HOOK = Path(__file__).with_name("azurite_hook.cjs")
ARGUMENTS = [
    *("--blobHost", "127.0.0.1"),
    *("--blobPort", "0"),
    "--inMemoryPersistence",
    # adlfs's SDK is newer than Azurite.
    "--skipApiVersionCheck",
    "--disableTelemetry",
    "--silent",
]


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    # Whatever it may write beside its memory goes here.
    folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="azurite-"))
    process = subprocess.Popen(
        [config["program"], *ARGUMENTS],
        cwd=folder,
        env={**os.environ, "NODE_OPTIONS": f"--require={json.dumps(str(HOOK))}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    cleanup.callback(_stop, process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{config['program']} ended by itself ({process.wait()})")
    announcement: Announcement = json.loads(line)
    return announcement


def _stop(process: subprocess.Popen[bytes]) -> None:
    # The hook would end it just as well, when this process is gone.
    process.kill()
    process.wait()


if __name__ == "__main__":
    run_child(serve)
