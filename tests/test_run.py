"""``managed-store run``: a program runs as under Python itself, and ends with a report of what it left open."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from managed_store.cli import main
from tests.servers import FolderServer, GCSServer
from tests.servers._process import REPOSITORY_ROOT

OPENS = "import socket\nleft = socket.socket()\n"


def python(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=folder
    )


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "managed_store", "run", *arguments, folder=folder)


def written(path: Path, program: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(program))
    return path


def test_what_plain_zarr_leaves_open(http: FolderServer, tmp_path: Path) -> None:
    """The report names the line of the script; stdout and the exit code are the program's, but with --fail."""
    script = written(
        tmp_path / "reads.py",
        """
        import sys, zarr

        def read(url):
            return zarr.open_group(url, mode="r")["numbers"][...]

        print(read(sys.argv[1]).shape, sys.argv[2:])
        """,
    )
    url = f"{http.url}/data.zarr"
    result = run("--sample", "0.01", "--json", "report.json", "reads.py", url, "--fail", "--json", folder=tmp_path)
    assert (result.returncode, result.stdout) == (0, "(4, 6) ['--fail', '--json']\n")
    assert result.stderr.startswith("managed-store: left open: 1 fsspec filesystem, 1 aiohttp session, 1 aiohttp conn")
    assert "\nopened at reads.py:5, in read\n" in result.stderr
    assert "\n  called from reads.py:7, in <module>\n" in result.stderr
    assert "on the event loop of thread zarr_io, which is running" in result.stderr
    assert "managed_store" not in result.stderr
    assert "open connections over " in result.stderr
    assert " | " in result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 0
    assert {leak["made_at"] for leak in report["leaks"]} == {f"{script}:5"}
    assert report["samples"][0][1] == 0
    assert report["samples"][-1][1] > 0
    assert run("--fail", script, url, folder=tmp_path).returncode == 3


def test_a_launcher_that_is_started_by_a_link(tmp_path: Path) -> None:
    """Nor one by a way that goes up and down: it is no code of the user's."""
    script = written(tmp_path / "opens.py", OPENS)
    launcher = Path(sys.executable).parent / "managed-store"
    link = tmp_path / "link"
    link.symlink_to(launcher)
    for command in (link, launcher.parent / ".." / launcher.parent.name / launcher.name):
        result = python(command, "run", script, folder=tmp_path)
        assert "opened at opens.py:2" in result.stderr
        assert "called from" not in result.stderr, result.stderr


def test_a_clean_program(http: FolderServer, tmp_path: Path) -> None:
    """Nothing was left open, whatever threads, executors and loops it uses: Python waits for threads as it ends."""
    written(
        tmp_path / "clean.py",
        """
        import asyncio, atexit, sys, time, zarr
        from concurrent.futures import ThreadPoolExecutor
        from threading import Thread
        from managed_store import ManagedStore

        def read():
            with ManagedStore(sys.argv[1]) as store:
                print(len(zarr.open_group(store, mode="r")))

        async def several():
            await asyncio.to_thread(read)

        asyncio.run(several())
        executor = ThreadPoolExecutor(1)
        executor.submit(read)
        Thread(target=lambda: (time.sleep(0.2), print("the thread has ended"))).start()
        atexit.register(print, "exit hooks run")
        print("main has ended")
        """,
    )
    result = run("--fail", "clean.py", f"{http.url}/data.zarr", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "managed-store: nothing was left open\n")
    said = result.stdout.split("\n")
    assert sorted(said) == sorted(["1", "1", "main has ended", "the thread has ended", "exit hooks run", ""])
    assert said[-2] == "exit hooks run"


def test_the_builtins_of_the_main_module(tmp_path: Path) -> None:
    """Python has given it the module, not its dictionary: programs look names up in it, and add some."""
    written(tmp_path / "looks.py", "print(__builtins__.len('abc'), __builtins__.__name__)\n")
    assert run("looks.py", folder=tmp_path).stdout == python("looks.py", folder=tmp_path).stdout == "3 builtins\n"


def test_it_is_looked_at_before_exit_hooks_close_anything(tmp_path: Path) -> None:
    """What an exit hook closes was left open by the program."""
    written(tmp_path / "late.py", OPENS + "import atexit\natexit.register(left.close)\n")
    result = run("late.py", folder=tmp_path)
    assert "opened at late.py:2, in <module>" in result.stderr


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit()", 0),
        ("sys.exit(5)", 5),
        ("sys.exit(0)", 0),
        ("sys.exit(True)", 1),
        ("sys.exit('a word to stderr')", 1),
        ("raise SystemExit(300)", 300 & 255),
        ("def f(): raise ValueError('wrong')\nf()", 1),
        ("1 +", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_however_it_ends(ending: str, code: int, tmp_path: Path) -> None:
    """Exit code, message and traceback are those of Python itself; the report follows, and --fail hides no failure."""
    written(tmp_path / "ends.py", f"{OPENS}import sys\n{ending}\n")
    plain = python("ends.py", folder=tmp_path)
    ran = run("--fail", "ends.py", folder=tmp_path)
    assert plain.returncode == code
    told, _, report = ran.stderr.partition("managed-store: ")
    assert told == plain.stderr
    if ending == "1 +":
        assert (ran.returncode, report) == (1, "nothing was left open\n")
    else:
        assert ran.returncode == (code or 3)
        assert report.startswith("left open: 1 socket")


PROBE = """
import pickle, sys
class Class: pass
pickle.loads(pickle.dumps(Class()))
import beside
spec = None if __spec__ is None else (__spec__.name, __spec__.origin, __spec__.parent)
print(__name__, __file__, __package__, spec, type(__loader__).__name__, sys.modules["__main__"].Class is Class)
print(sys.argv, sys.path[0], beside.__file__)
"""


def test_it_runs_as_python_runs_it(tmp_path: Path) -> None:
    """Scripts, modules, packages, folders and archives see the same name, file, spec, path and arguments."""
    for name in ("script.py", "package/__main__.py", "folder/__main__.py", "package/sub.py"):
        written(tmp_path / name, PROBE)
    for name in ("package/__init__.py", "beside.py", "folder/beside.py"):
        written(tmp_path / name, "")
    with zipfile.ZipFile(tmp_path / "archive.pyz", "w") as archive:
        archive.writestr("__main__.py", PROBE)
        archive.writestr("beside.py", "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for program, folder in (
        (["script.py"], tmp_path),
        (["../script.py"], elsewhere),
        (["-m", "script"], tmp_path),
        (["-m", "package"], tmp_path),
        (["-mpackage.sub"], tmp_path),
        (["folder"], tmp_path),
        (["archive.pyz"], tmp_path),
    ):
        plain = python(*program, "-m", "--fail", "x", folder=folder)
        ran = run(*program, "-m", "--fail", "x", folder=folder)
        assert (plain.returncode, plain.stderr) == (0, "")
        assert ran.stdout == plain.stdout
        assert (ran.returncode, ran.stderr) == (0, "managed-store: nothing was left open\n")


def test_what_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each says what is wrong, with the exit code that Python has for it, and writes nothing."""
    program = str(tmp_path / "program.py")
    Path(program).write_text("pass")
    for arguments, code, message in (
        (["missing.py"], 2, "can't open file"),
        (["-m", "no_such_module"], 1, "No module named no_such_module"),
        (["-m", "no.such.module"], 1, "Error while finding 'no.such.module'"),
        ([str(tmp_path)], 1, "can't find '__main__' module in"),
    ):
        result = run(*arguments, folder=tmp_path)
        assert (result.returncode, result.stdout) == (code, "")
        assert result.stderr.startswith(f"managed-store run: {message}"), result.stderr
    for arguments, message in (
        ([], "one of the arguments -m SCRIPT is required"),
        (["-m"], "expected one argument"),
        (["--sample", "often", "x.py"], "must be a number of seconds, 0.001 or more; got 'often'"),
        (["--no-such", "x.py"], "unrecognized arguments: --no-such"),
        (["--json", f"{tmp_path}/no/such", program], "cannot write --json"),
        (["--json", program, "http://127.0.0.1:1/x"], "can't open file"),  # FILE was forgotten
        (["--json", program, program], f"--json takes the FILE to write to; got {program}, a program"),
    ):
        with contextlib.suppress(SystemExit):
            assert main(["run", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert Path(program).read_text() == "pass"
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "usage: managed-store run [--fail] [--json FILE] [--sample SECONDS]" in capsys.readouterr().out


def test_programs_without_managed_store_or_zarr(http: FolderServer, tmp_path: Path) -> None:
    """Bare aiohttp that leaks, on a loop that has ended."""
    written(
        tmp_path / "bare.py",
        """
        import asyncio, sys
        import aiohttp

        async def main():
            session = aiohttp.ClientSession()
            await (await session.get(sys.argv[1])).read()
            return session

        session = asyncio.run(main())
        """,
    )
    result = run("bare.py", f"{http.url}/data.zarr/zarr.json", folder=tmp_path)
    assert result.returncode == 0
    assert "managed-store: left open: 1 aiohttp session, 1 aiohttp connector, 1 socket" in result.stderr
    assert "opened at bare.py:6, in main" in result.stderr
    assert "on the event loop of thread MainThread, which is closed" in result.stderr
    assert str(REPOSITORY_ROOT) not in result.stderr


def test_programs_that_start_others_of_themselves(tmp_path: Path) -> None:
    """A spawned process imports the program as its main module, under no check of its own."""
    program = """
        import multiprocessing, socket, sys

        def child(number):
            left = socket.socket()
            return number, __name__, "managed_store.testing" in sys.modules

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(child, [1]))
                pool.close()
                pool.join()
    """
    written(tmp_path / "script.py", program)
    for program_arguments in (["script.py"], ["-m", "script"]):
        plain, ran = python(*program_arguments, folder=tmp_path), run(*program_arguments, folder=tmp_path)
        assert plain.stdout == ran.stdout == "[(1, '__mp_main__', False)]\n"
        assert ran.stderr == "managed-store: nothing was left open\n"


def test_a_safe_path(tmp_path: Path) -> None:
    """Under ``-P`` nothing beside the program is imported, as Python has it."""
    written(tmp_path / "script.py", "import sys; print(sys.path[0]); import beside")
    written(tmp_path / "beside.py", "")
    plain = python("-P", "script.py", folder=tmp_path)
    ran = python("-P", "-m", "managed_store", "run", "script.py", folder=tmp_path)
    assert plain.returncode == ran.returncode == 1
    assert plain.stdout == ran.stdout
    assert plain.stderr.splitlines()[-1] in ran.stderr.splitlines()


def test_what_gcsfs_leaves_open(gcs: GCSServer, tmp_path: Path) -> None:
    """Its session is told with the line that asked for the group."""
    written(
        tmp_path / "reads.py",
        """
        import json, sys, zarr

        group = zarr.open_group(sys.argv[1], mode="r", storage_options=json.loads(sys.argv[2]))
        print(group["numbers"].shape)
        """,
    )
    result = run("reads.py", "gs://bucket/data.zarr", json.dumps(gcs.storage_options), folder=tmp_path)
    assert (result.returncode, result.stdout) == (0, "(4, 6)\n")
    assert "1 aiohttp session" in result.stderr
    assert "\nopened at reads.py:4, in <module>\n" in result.stderr
