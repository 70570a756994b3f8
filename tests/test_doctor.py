"""``managed-store doctor``: versions and what is known of them, event loops, and the self-test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from packaging.specifiers import SpecifierSet

from managed_store import _doctor
from managed_store._doctor import event_loops, self_test
from managed_store._doctor.event_loops import Finding, examine_event_loops
from managed_store._doctor.facts import FACTS, Fact
from managed_store._doctor.report import Report
from managed_store._doctor.self_test import Outcome
from managed_store._doctor.servers import BACKENDS, Backend, Place
from managed_store._doctor.versions import PACKAGES, examine_versions, installed_versions, supported_versions
from managed_store.cli import main
from tests.servers._process import REPOSITORY_ROOT

SECRET = "s3cr3t-of-the-environment"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files of the whole run."""
    return tmp_path_factory.mktemp("doctor")


@pytest.fixture(scope="module")
def whole_run(temporary: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, beside settings for other places."""
    settings = ("AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "FSSPEC_S3_KEY", "FSSPEC_GS_TOKEN", "STORAGE_EMULATOR_HOST")
    environment = {**os.environ, **dict.fromkeys(settings, SECRET), "TMPDIR": str(temporary)}
    return subprocess.run(
        [sys.executable, "-X", "dev", "-m", "managed_store", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_every_backend_with_a_server_is_clean(whole_run: subprocess.CompletedProcess[str]) -> None:
    """Written, read and closed with nothing left; where there is no server, it says so; exit code 0."""
    report = json.loads(whole_run.stdout)
    results = {each["backend"]: each["result"] for each in report["self_test"]}
    clean = {name: results[name] for name in ("memory", "file", "http", "gs", "s3")}
    assert clean == dict.fromkeys(clean, "clean"), report["self_test"]
    assert results["az"] in ("not tested", "not installed")
    assert report["sound"] is True
    assert report["problems"] == []
    assert whole_run.returncode == 0


def test_it_is_silent_and_leaves_no_file(whole_run: subprocess.CompletedProcess[str], temporary: Path) -> None:
    """Nothing on stderr, in development mode too, and nothing of the environment in what it says."""
    assert whole_run.stderr == ""
    assert list(temporary.iterdir()) == []
    assert SECRET not in whole_run.stdout


def test_the_json_has_a_stable_form(whole_run: subprocess.CompletedProcess[str]) -> None:
    """These keys are what programs may rely on: a change of them is a change of the schema's number."""
    report = json.loads(whole_run.stdout)
    assert report["schema"] == 1
    assert set(report) == {"schema", "managed_store", "sound", "problems", "versions", "event_loops", "self_test"}
    assert [each["name"] for each in report["versions"]] == list(PACKAGES)
    for each in report["versions"]:
        assert set(each) == {"name", "version", "supported", "is_supported", "known", "mended", "upgrade_to"}
        for fact in [*each["known"], *each["mended"]]:
            assert set(fact) == {"package", "affects", "symptom", "remedy", "threads", "fixed_in"}
    for each in report["event_loops"]:
        assert set(each) == {"check", "sound", "found", "advice"}
    for each in report["self_test"]:
        assert set(each) == {"backend", "result", "detail", "seconds", "left"}


def test_text_and_no_self_test(capsys: pytest.CaptureFixture[str]) -> None:
    """What a person reads: each package with its version, faults and threads, the checks, and the result."""
    assert main(["doctor", "--no-self-test"]) == 0
    out = capsys.readouterr().out
    for name, version in installed_versions().items():
        assert f"  {name:12}{version}" in out
    assert "https://github.com/zarr-developers/zarr-python/issues/4165" in out
    assert "  ok  zarr's IO thread: answers" in out
    assert "Self-test" not in out
    assert out.endswith("\n\nSound.\n")


def test_a_problem_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A self-test that finds a leak, and is told."""
    leaked = Outcome("http", "leaked", seconds=0.1, left=("1 TCP socket",))
    monkeypatch.setattr(self_test, "self_test", lambda: [leaked])
    assert _doctor.doctor() == 1
    out = capsys.readouterr().out
    assert "  http    leaked         0.10 s\n      1 TCP socket\n" in out
    assert out.endswith("Not sound:\n  self-test of http: leaked\n")


# --- versions


def test_the_facts_are_well_formed() -> None:
    """Each names a known package, a specifier that parses, and public threads; what is mended is not affected."""
    assert len(set(FACTS)) == len(FACTS)
    for fact in FACTS:
        assert fact.package in PACKAGES
        assert fact.threads
        assert all(thread.startswith("https://github.com/") for thread in fact.threads)
        assert fact.symptom
        assert fact.remedy
        affected = SpecifierSet(fact.affects)
        if fact.fixed_in is None:
            assert fact.affects == "", "what no release mends affects every one"
        else:
            assert fact.fixed_in not in affected
            assert f"<{fact.fixed_in}" in fact.affects


def test_every_package_has_a_fact() -> None:
    """There is something to say of each."""
    assert {fact.package for fact in FACTS} == set(PACKAGES)


def test_an_old_version_is_told_what_to_upgrade() -> None:
    """To the oldest release in which all is mended that an upgrade mends."""
    old = {"gcsfs": "2024.12.0", "s3fs": "2026.3.0", "aiobotocore": "3.9.0"}
    gcsfs, s3fs, aiobotocore = examine_versions(old, {})
    assert any("https://github.com/fsspec/gcsfs/issues/657" in fact.threads for fact in gcsfs.known)
    assert gcsfs.upgrade_to == "2026.8.2"
    assert [fact.fixed_in for fact in gcsfs.mended] == ["2024.3.1"]
    assert s3fs.upgrade_to == "2026.6.0"
    assert len([fact for fact in s3fs.known if fact.fixed_in == "2026.6.0"]) == 2
    assert aiobotocore.upgrade_to == "3.10.0"
    report = str(Report([gcsfs, s3fs, aiobotocore], [], []))
    assert "gcsfs       2024.12.0       upgrade to 2026.8.2 or newer" in report


def test_a_fault_that_came_with_a_release_is_not_one_of_older_ones() -> None:
    """s3fs 2026.1 has what 2026.2 mended, and not what came with it."""
    (before,) = examine_versions({"s3fs": "2026.1.0"}, {})
    assert ">=2026.2.0,<2026.6.0" not in [fact.affects for fact in before.known]


@pytest.mark.parametrize("version", ["2026.9.1.dev3+gabcdef", "2027.1.0rc1", "2026.9.0.post1"])
def test_versions_of_every_form(version: str) -> None:
    """A development version, too, is newer than the releases before it."""
    (fsspec,) = examine_versions({"fsspec": version}, {"fsspec": ">=2024.12.0"})
    assert fsspec.is_supported
    assert fsspec.upgrade_to is None
    assert len(fsspec.mended) == 3


@pytest.mark.parametrize("version", [None, "unknown"])
def test_a_version_that_cannot_be_told(version: str | None) -> None:
    """What is not installed, or has no proper version, has no faults that are known."""
    (adlfs,) = examine_versions({"adlfs": version}, {"adlfs": ">=2024.12"})
    assert adlfs.is_supported
    assert adlfs.known == adlfs.mended == ()


def test_a_version_below_the_supported_ones_is_a_problem() -> None:
    """Known faults are none, as a managed store lives with them; a version that it does not work with is one."""
    packages = examine_versions({"zarr": "3.0.0", "gcsfs": "2024.12.0"}, supported_versions())
    assert Report(packages, [], []).problems() == ["zarr 3.0.0 is not supported: >=3.1.0"]


def test_what_is_supported_is_what_the_package_declares() -> None:
    """Read from its metadata, the extras' packages among them."""
    supported = supported_versions()
    assert supported["zarr"] == ">=3.1.0"
    assert supported["Python"] == ">=3.11"
    assert {"fsspec", "aiohttp", "gcsfs", "s3fs", "adlfs"} <= supported.keys()
    assert all(package.is_supported for package in examine_versions(installed_versions(), supported))


def test_a_fact_of_nothing_else_is_told() -> None:
    """Facts are looked up by package."""
    fact = Fact("zarr", "<4", "a symptom", "upgrade", ("https://github.com/",), fixed_in="4")
    zarr, fsspec = examine_versions({"zarr": "3.1.0", "fsspec": "2026.9.0"}, {}, [fact])
    assert zarr.known == (fact,)
    assert fsspec.known == fsspec.mended == ()


# --- event loops


def finding(check: str) -> Finding:
    return next(each for each in examine_event_loops() if each.check == check)


def test_this_process_is_sound() -> None:
    """asyncio's own loop, nothing nested, no loop running here, and IO threads that answer."""
    findings = examine_event_loops()
    assert all(each.sound for each in findings), findings
    assert finding("event loop").found.startswith("a new one is asyncio.")
    assert "does not make new event loops" in finding("uvloop").found
    assert finding("running loop").found.startswith("none runs")


def test_uvloop_that_makes_the_loops_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loop that is made, whoever arranged that."""
    monkeypatch.setattr(asyncio, "new_event_loop", uvloop.new_event_loop)
    assert finding("event loop").found == "a new one is uvloop.Loop"
    assert "and makes new event loops" in finding("uvloop").found


async def test_a_running_loop_is_seen() -> None:
    """As in a notebook."""
    found = finding("running loop")
    assert found.sound
    assert "async with" in found.advice


def test_nested_loops_are_a_problem() -> None:
    """nest_asyncio applied: the command says so, and ends with 1."""
    program = (
        "import nest_asyncio, sys; nest_asyncio.apply()\n"
        "from managed_store.cli import main; sys.exit(main(['doctor', '--no-self-test', '--json']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert json.loads(ended.stdout)["problems"] == ["nested loops: nest_asyncio is applied"]


def test_the_start_method_is_told_and_not_fixed() -> None:
    """The default of the platform; asking does not choose it."""
    before = multiprocessing.get_start_method(allow_none=True)
    found = finding("start method")
    assert found.found.startswith(before or multiprocessing.get_all_start_methods()[0])
    assert ("forkserver" in found.advice) == found.found.startswith("fork,")
    assert multiprocessing.get_start_method(allow_none=True) == before


def test_an_io_thread_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for no longer than so long; one that cannot be asked is told apart."""
    answer = threading.Event()
    monkeypatch.setattr(event_loops, "_PATIENCE", 0.05)
    monkeypatch.setattr(event_loops, "_ask_zarr", answer.wait)
    monkeypatch.setattr(event_loops, "_ask_fsspec", lambda: json.loads(SECRET))
    try:
        zarr, fsspec = finding("zarr's IO thread"), finding("fsspec's IO thread")
    finally:
        answer.set()
    assert not zarr.sound
    assert zarr.found.startswith("does not answer")
    assert not fsspec.sound
    assert fsspec.found == "cannot be asked: JSONDecodeError"


# --- self-test


def only(name: str) -> Backend:
    return next(each for each in BACKENDS if each.name == name)


def in_environment(backend: Backend, folder: Path, startup: str) -> Backend:
    """The same backend in a process that runs `startup` first."""
    (folder / "sitecustomize.py").write_text(startup)
    paths = os.pathsep.join([str(folder), str(REPOSITORY_ROOT)])

    @contextlib.contextmanager
    def serve(root: Path) -> Iterator[Place]:
        assert backend.serve is not None
        with backend.serve(root) as place:
            yield replace(place, environment={**place.environment, "PYTHONPATH": paths})

    return replace(backend, serve=serve)


LEAKS_A_SOCKET = """
import socket
from urllib.parse import urlsplit
from fsspec.implementations.http import HTTPFileSystem
cat_file = HTTPFileSystem._cat_file
kept = []
async def leaking(self, url, *args, **options):
    if not kept:
        kept.append(socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)))
    return await cat_file(self, url, *args, **options)
HTTPFileSystem._cat_file = leaking
"""

LEAKS_A_TASK_AT_EXIT = """
import atexit, warnings
atexit.register(lambda: warnings.warn("unclosed transport", RuntimeWarning))
"""


def test_a_backend_that_leaves_something_open_fails(tmp_path: Path) -> None:
    """Seen by the operating system's count and by the leak check, which names the socket."""
    (outcome,) = self_test.self_test([in_environment(only("http"), tmp_path, LEAKS_A_SOCKET)])
    assert outcome.result == "leaked"
    assert not outcome.is_sound
    assert "1 TCP socket" in outcome.left
    assert "1 file descriptor" in outcome.left
    assert any(line.startswith("socket ") for line in outcome.left), outcome.left


def test_what_is_said_at_the_end_of_the_process_counts(tmp_path: Path) -> None:
    """A finalizer that warns after the last line."""
    (outcome,) = self_test.self_test([in_environment(only("memory"), tmp_path, LEAKS_A_TASK_AT_EXIT)])
    assert (outcome.result, outcome.left) == ("leaked", ("on stderr: unclosed transport",))


def test_a_process_that_dies_fails(tmp_path: Path) -> None:
    """Whatever it says on stderr stays there: it may hold anything."""
    (outcome,) = self_test.self_test(
        [in_environment(only("memory"), tmp_path, f"import os; os.write(2, b'{SECRET}'); os._exit(3)")]
    )
    assert outcome.result == "failed"
    assert outcome.detail == "its process ended with exit code 3 before its time"


def test_a_backend_that_hangs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after its time."""
    monkeypatch.setattr(self_test, "_LONGEST", 0.2)
    (outcome,) = self_test.self_test([in_environment(only("memory"), tmp_path, "import time; time.sleep(60)")])
    assert (outcome.result, outcome.detail) == ("failed", "not back within 0 s")


def test_a_backend_that_cannot_be_read_fails() -> None:
    """The error is told, and what was left open all the same."""

    @contextlib.contextmanager
    def serve(root: Path) -> Iterator[Place]:
        yield Place(f"file://{root}/nothing.zarr", is_written=True)

    (outcome,) = self_test.self_test([Backend("file", serve=serve)])
    assert outcome.result == "failed"
    assert "Error: " in outcome.detail
    assert outcome.left == ()


def test_what_cannot_be_tested_is_said() -> None:
    """Not installed, no server, no package for the server, or a server that does not start: never clean."""

    def refuse(_root: Path) -> Any:
        raise OSError(SECRET)

    outcomes = self_test.self_test(
        [
            Backend("gone", needs=("no_such_module",)),
            Backend("alone"),
            Backend("poor", server_needs=("no_such_server",), serve=refuse),
            Backend("refused", serve=refuse),
        ]
    )
    assert [(each.result, each.detail) for each in outcomes] == [
        ("not installed", "needs no_such_module"),
        ("not tested", "no server at hand"),
        ("not tested", "no server at hand: that needs no_such_server"),
        ("not tested", "its server does not start: OSError"),
    ]
    assert all(each.is_sound for each in outcomes)
