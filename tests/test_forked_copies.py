"""A forked child closes its copies of the parent's sockets: the server sees it when the parent closes a connection."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from tests.matrix import without_noise
from tests.places import Place, Places
from tests.servers import http_server
from tests.servers._process import REPOSITORY_ROOT
from tests.test_nothing_left_open import place_for

# Not those whose connections lie too deep: httpx's and urllib3's pools (webdav, webhdfs), gRPC's.
BACKENDS = (
    "http", "https", "gs, plain class", "s3", "s3, cache_regions", "az", "ftp", "sftp", "smb",
    "reference, JSON", "simplecache::http", "zip::http", "dir::http",
)  # fmt: skip

PROLOGUE = """
import asyncio, os, sys, traceback
from managed_store import ManagedStore
from tests.footprint import Footprint
from tests.servers._statistics import fetch_statistics
from tests.uses import aread, read

def fork_one_that_lives_on(use=lambda: None):
    # Gives its number, what it holds before its use, and the pipe whose end tells it to go.
    told, tell = os.pipe()
    answer, answering = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        copies = Footprint.now().sockets
        try:
            use()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os.write(answering, bytes([copies]))
        os.read(told, 1)
        os._exit(0)
    os.close(told)
    os.close(answering)
    return pid, int.from_bytes(os.read(answer, 1)), tell

def end(pid, tell):
    os.close(tell)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(program: str, *arguments: str, place: Place | None = None) -> None:
    """Run a program; it must end well and in silence."""
    # Python 3.12 warns of every fork beside threads, zarr's among them; that is what is tried here.
    options = ["-X", "dev", "-W", "ignore:This process:DeprecationWarning"]
    result = subprocess.run(
        [sys.executable, *options, "-c", PROLOGUE + textwrap.dedent(program), *arguments],
        env={**os.environ, **(place.environment if place else {})},
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (result.returncode, without_noise(result.stderr)) == (0, [])


@pytest.mark.parametrize("variant", [*BACKENDS, "webdav", "webhdfs"])
def test_a_child_opens_its_own_and_holds_no_socket_of_its_parent(variant: str, places: Places) -> None:
    """It reads through the store that it inherited while its parent lives on with the connections that it had."""
    place = place_for(variant, places)
    run(
        """
        url, options = eval(sys.argv[1])
        with ManagedStore(url, storage_options=options) as store:
            read(store)
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(aread(store))
                before = Footprint.now().sockets
                assert before >= 1
                pid, copies, tell = fork_one_that_lives_on(lambda: (read(store), asyncio.run(aread(store))))
                assert copies == int(sys.argv[2])
                assert Footprint.now().sockets == before
                read(store)
                runner.run(aread(store))
                end(pid, tell)
        assert Footprint.now().sockets == 0
        """,
        repr((place.url, place.options)),
        str(0 if variant in BACKENDS else 2),
        place=place,
    )


def test_a_child_whose_parent_has_used_grpc_is_told_that_it_cannot(places: Places) -> None:
    """Every call would hang there, or crash: the error says what to do instead, and the parent goes on."""
    place = place_for("gs, gRPC, flat", places)
    place = replace(place, environment={**place.environment, "GRPC_VERBOSITY": "ERROR"})  # it tells of every fork
    run(
        """
        from managed_store import StoreOpenError
        def try_to_read():
            for mine in (store, ManagedStore(url, storage_options=options)):
                try:
                    read(mine)
                except StoreOpenError as error:
                    assert "'spawn' or 'forkserver'" in str(error)
                else:
                    raise AssertionError
        url, options = eval(sys.argv[1])
        with ManagedStore(url, storage_options=options) as store:
            read(store)
            end(*fork_one_that_lives_on(try_to_read)[::2])
            read(store)
        """,
        repr((place.url, place.options)),
        place=place,
    )


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_the_server_sees_the_parents_close_while_a_child_lives_on(tls: bool) -> None:
    with http_server(tls=tls) as server:
        (server.root / "key").write_bytes(b"content")
        place = Place(server.url, environment={"SSL_CERT_FILE": str(server.ca_file)} if tls else {})
        run(
            """
            from zarr.core.buffer import default_buffer_prototype
            from zarr.core.sync import sync
            import time

            with ManagedStore(sys.argv[1]) as store:
                assert sync(store.get("key", default_buffer_prototype())).to_bytes() == b"content"
                pid, copies, tell = fork_one_that_lives_on()
                assert fetch_statistics(int(sys.argv[2])).connections == 1
            deadline = time.monotonic() + 5
            while fetch_statistics(int(sys.argv[2])).connections:
                assert time.monotonic() < deadline, "the server still has the connection"
            os.kill(pid, 0)  # the child is alive
            end(pid, tell)
            """,
            server.url,
            str(server.statistics_port),
            place=place,
        )
