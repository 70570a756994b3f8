"""What adlfs gets from Azurite."""

from __future__ import annotations

import os
import subprocess
import uuid
import weakref
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.servers import AzureServer, azure_server
from tests.servers._clients import needs_azurite
from tests.servers._files import check_files, check_missing
from tests.servers._process import REPOSITORY_ROOT
from tests.servers.azure import azurite_program

pytest.importorskip("adlfs")
pytestmark = needs_azurite


@pytest.fixture(scope="module")
def server() -> Iterator[AzureServer]:
    with azure_server() as server:
        yield server


@pytest.fixture
def container(server: AzureServer) -> str:
    return server.create_container(f"test-{uuid.uuid4().hex}")


def close(filesystem: Any) -> None:
    """Close its client, and retire the finalizer that would do so again at exit (and keeps it alive until then)."""
    for reference in weakref.getweakrefs(filesystem):
        if isinstance(reference.__callback__, weakref.finalize):
            reference.__callback__.detach()
    fsspec.asyn.sync(filesystem.loop, filesystem.service_client.close)


@pytest.fixture(autouse=True)
def nothing_left_open(server: AzureServer) -> Iterator[None]:
    yield
    assert server.wait_for_connections(0) == 0


@pytest.fixture
def filesystem(server: AzureServer) -> Iterator[Any]:
    filesystem = fsspec.filesystem("az", skip_instance_cache=True, **server.storage_options)
    yield filesystem
    close(filesystem)


def test_files(filesystem: Any, container: str) -> None:
    check_files(filesystem, f"{container}/files")


def test_missing_files(filesystem: Any, container: str) -> None:
    filesystem.pipe_file(f"{container}/x", b"x")
    check_missing(filesystem, container)


@pytest.mark.parametrize("protocol", ["az", "abfs"])
def test_both_protocols_name_a_container(server: AzureServer, container: str, protocol: str) -> None:
    filesystem, path = fsspec.url_to_fs(
        f"{protocol}://{container}/a/x", skip_instance_cache=True, **server.storage_options
    )
    filesystem.pipe_file(path, b"x")
    assert filesystem.find(container) == [f"{container}/a/x"]
    assert filesystem.cat_file(path) == b"x"
    close(filesystem)


def test_connections_are_counted_while_they_last(server: AzureServer, container: str) -> None:
    opened, requests = server.opened(), server.requests()
    filesystem = fsspec.filesystem("az", skip_instance_cache=True, **server.storage_options)
    assert server.connections() == 0
    filesystem.pipe_file(f"{container}/x", b"x")
    assert [filesystem.cat_file(f"{container}/x") for _ in range(3)] == [b"x"] * 3
    assert (server.connections(), server.opened() - opened, server.requests() - requests) == (1, 1, 4)
    close(filesystem)
    assert server.wait_for_connections(0) == 0


def test_idle_connections_are_left_to_the_client(server: AzureServer) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("GET", "/devstoreaccount1/none/x")
        response = connection.getresponse()
        response.read()
        assert response.getheader("Keep-Alive") == "timeout=3600"
        assert server.connections() == 1


def test_container_with_a_bad_name_is_an_error(server: AzureServer) -> None:
    azure_core_exceptions: Any = pytest.importorskip("azure.core.exceptions")
    with pytest.raises(azure_core_exceptions.HttpResponseError):
        server.create_container("b")


def test_program_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = azurite_program()
    assert found is not None
    named = tmp_path / "azurite"
    named.symlink_to(found)
    monkeypatch.setenv("AZURITE_BLOB", str(named))
    assert azurite_program() == str(named)
    monkeypatch.setenv("AZURITE_BLOB", str(tmp_path / "missing"))
    assert azurite_program() is None


def test_installer_is_quick_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    package = tmp_path / "node_modules/azurite"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{\n  "name": "azurite",\n  "version": "3.35.0",\n  "x": 1\n}\n')
    program = tmp_path / "node_modules/.bin/azurite-blob"
    program.parent.mkdir()
    program.touch(mode=0o755)
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "npm_config_registry": "http://127.0.0.1:9"}
    subprocess.run(
        [REPOSITORY_ROOT / ".ci/install_azurite", tmp_path], env=environment, check=True, capture_output=True, timeout=5
    )
