"""The command: ``demo`` and ``info``, run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import zarr

from managed_store import __version__
from managed_store.cli import main
from tests.servers import FolderServer
from tests.tiny_server import Answer, tiny_server


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-m", "managed_store", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_demo_shows_what_each_way_leaves_open(tmp_path: Path) -> None:
    """The demonstration prints a table, exits with 0, is silent on stderr, and leaves no file behind."""
    result = run("demo", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = {line.split("  ")[0]: line.split() for line in result.stdout.splitlines() if "ms" in line.split()}
    assert list(rows) == ["zarr alone", "with ManagedStore", "async with ManagedStore"]
    # The last three columns: sessions, sockets, file descriptors.
    assert all(int(figure) > 0 for figure in rows["zarr alone"][-3:])
    assert rows["with ManagedStore"][-3:] == ["0", "0", "0"]
    assert rows["async with ManagedStore"][-3:] == ["0", "0", "0"]
    members = {row[-6] for row in rows.values()}
    assert members == {"4"}
    assert list(tmp_path.iterdir()) == []
    assert result.stderr == ""


def test_info_prints_the_tree(http: FolderServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Members, shapes, dtypes and chunks of a remote hierarchy."""
    assert main(["info", f"{http.url}/data.zarr"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{http.url}/data.zarr  group, zarr format 3, 1 member"
    assert second == "  numbers  int32 (4, 6) in chunks of (2, 3)"


def test_info_indents_what_is_nested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups end in a "/", and what is in them is indented below them."""
    group = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2)
    group.create_group("sub").create_array("inner", shape=(3,), chunks=(2,), dtype="i2")
    group.create_array("outer", shape=(4, 4), chunks=(2, 2), dtype="f8")
    assert main(["info", str(tmp_path / "a.zarr")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/a.zarr  group, zarr format 2, 3 members",
        "  outer    float64 (4, 4) in chunks of (2, 2)",
        "  sub/",
        "    inner  int16 (3,) in chunks of (2,)",
    ]
    assert main(["info", str(tmp_path / "a.zarr" / "outer")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.zarr/outer  float64 (4, 4) in chunks of (2, 2)\n"


def test_info_takes_options(capsys: pytest.CaptureFixture[str]) -> None:
    """An option is JSON where it can be, else text; one that has no "=" is a wrong call."""
    code = main(["info", "memory://nothing", "--option", 'headers={"a": "b"}', "--option", "asynchronous=false"])
    assert code == 1
    assert "storage_options['asynchronous'] must be True or absent" in capsys.readouterr().err
    assert main(["info", "memory://nothing", "--option", "asynchronous=False"]) == 1
    assert "storage_options['asynchronous'] must be True or absent" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["info", "memory://nothing", "--option", "anon"])
    assert caught.value.code == 2
    assert "must look like KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("True", True), ("False", False), ("None", None), ("null", None), ("3", 3), ('"3"', "3"),
        ('"True"', "True"), ("anon", "anon"), ("a=b", "a=b"), ("", ""), ('["a"]', ["a"]),
    ],
)  # fmt: skip
def test_how_an_option_is_read(text: str, value: object) -> None:
    """As JSON, or as Python spells its constants; in quotes it is text in any case."""
    from managed_store._commands.info import _option

    assert _option(f"name={text}") == ("name", value)


@pytest.mark.parametrize("url", ["memory://nothing", "no/such/folder"])
def test_info_of_nothing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A place without a group or array is told of in plain words."""
    assert main(["info", url]) == 1
    assert capsys.readouterr().err == f"managed-store: {url}: There is no zarr group or array here.\n"


def test_info_tells_what_went_wrong_without_secrets() -> None:
    """One line on stderr and exit code 1, without a traceback, the user info, the query or an option's value."""
    result = run("info", "http://user:s3cr3t@127.0.0.1:1/a.zarr?token=s3cr3t", "--option", "size_policy=s3cr3t")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "http://***@127.0.0.1:1/a.zarr?***: ClientConnectorError, Connection refused. " in result.stderr
    assert "s3cr3t" not in result.stderr


@pytest.mark.parametrize("secret", ["SEC%2FRET", "SEC/RET", "SEC RET", "SEC+RET", "SEC'RET", "SEC%27RET"])
def test_info_is_refused_by_a_server(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    """aiohttp tells the URL, with its query spelled in another way."""
    with tiny_server(lambda method, path, headers: Answer(403)) as url:
        assert main(["info", f"{url}/a.zarr?sig={secret}"]) == 1
    told = capsys.readouterr().err
    assert "?***: ClientResponseError, HTTP status 403. " in told
    assert "SEC" not in told
    assert "RET" not in told


def test_info_does_not_tell_values_deep_in_options(capsys: pytest.CaptureFixture[str]) -> None:
    """aiohttp tells the proxy that it cannot use."""
    options = ["--option", 'client_kwargs={"proxy": "my SECRET proxy"}']
    assert main(["info", "http://127.0.0.1:1/a.zarr", *options]) == 1
    told = capsys.readouterr().err
    assert "http://127.0.0.1:1/a.zarr: InvalidURL. " in told
    assert "SECRET" not in told


def test_info_into_a_pipe_that_is_closed_early(tmp_path: Path) -> None:
    """As into `head`: nothing is said of it."""
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    for number in range(300):
        group.create_array(f"array-{number}-{'x' * 200}", shape=1, dtype="i1")
    command = f"{sys.executable} -m managed_store info {tmp_path / 'a.zarr'} | head -n 1"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["demo", "doctor"])
def test_ctrl_c(command: str) -> None:
    """It ends at once, without a traceback of this package's, and leaves no process."""
    # Started in the background of a shell, a program is deaf to Ctrl-C until it says otherwise.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"from managed_store.cli import main; sys.exit(main([{command!r}]))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in said
    psutil.wait_procs(children, timeout=5)
    assert not [child for child in children if child.is_running()]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The usual two."""
    for option, expected in (("--version", f"managed-store {__version__}\n"), ("--help", "usage: managed-store")):
        with pytest.raises(SystemExit) as caught:
            main([option])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(expected)


def test_no_temporary_folder_is_left_by_a_demo_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a way of reading fail, the server stops and the folder goes all the same."""
    from managed_store import _demo

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(_demo._WAYS, "no-such-way", ("fails", len))
    with pytest.raises(subprocess.CalledProcessError):
        _demo.demo()
    assert list(tmp_path.iterdir()) == []
