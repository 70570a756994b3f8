"""What gcsfs gets from the server that speaks gRPC too, and what it holds afterwards.

gRPC reads the certificates to trust once in a process, so each client is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers._process import REPOSITORY_ROOT
from tests.servers.gcs_grpc import GCSServerWithGRPC, gcs_grpc_server

pytest.importorskip("gcsfs.extended_gcsfs")
pytest.importorskip("google.cloud._storage_v2")

# Prints what `use` returns, and what was logged as a warning or worse.
PROGRAM = """
import asyncio, json, logging, sys
from gcsfs.extended_gcsfs import ExtendedGcsFileSystem

class Collector(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())

async def use(filesystem, bucket):
{body}

async def main(options, bucket):
    asyncio.get_running_loop().slow_callback_duration = 60
    filesystem = ExtendedGcsFileSystem(asynchronous=True, skip_instance_cache=True, **options)
    try:
        return await use(filesystem, bucket)
    finally:
        await filesystem._close_resources()
        filesystem._memmove_executor.shutdown()
        if filesystem._session is not None:
            await filesystem._session.close()

logged = []
logging.getLogger().addHandler(Collector(logging.WARNING))
result = asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2]))
print(json.dumps([result, logged]))
"""


def run_client(
    server: GCSServerWithGRPC, bucket: str, body: str, *, options: dict[str, Any] | None = None, trusting: bool = True
) -> tuple[Any, list[str]]:
    """Run `body` as a coroutine about `filesystem` and `bucket`; gives what it returns, and the warnings."""
    program = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    options = {**server.storage_options, **(options or {})}
    completed = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, json.dumps(options), bucket],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, **(server.environment if trusting else {})},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    if trusting:
        assert completed.stderr == ""
    result, logged = json.loads(completed.stdout)
    return result, logged


def put(server: GCSServerWithGRPC, bucket: str, name: str, content: bytes) -> None:
    status, _, _ = server.request("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", content)
    assert status == 200


def pattern(size: int) -> bytes:
    """Bytes that tell each of their places from its neighbours; the programs make the same."""
    return b"".join(number.to_bytes(4, "big") for number in range(-(-size // 4)))[:size]


@pytest.fixture(scope="module")
def server() -> Iterator[GCSServerWithGRPC]:
    with gcs_grpc_server() as server:
        yield server


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4().hex}"


KINDS = {"flat": "NON_HIERARCHICAL", "hierarchical": "HIERARCHICAL", "zonal": "ZONAL_HIERARCHICAL"}


@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_a_bucket_is_told_over_a_channel_that_stays(server: GCSServerWithGRPC, name: str, kind: Any) -> None:
    bucket = server.create_bucket(name, kind)
    calls = server.grpc_statistics().requests
    body = """
        bucket_type = await filesystem._lookup_bucket_type(bucket)
        assert filesystem._grpc_client is None
        channel = filesystem._storage_control_client.transport.grpc_channel
        return [bucket_type.value, str(channel.get_state())]
    """
    assert run_client(server, bucket, body) == ([KINDS[kind], "ChannelConnectivity.READY"], [])
    assert server.grpc_statistics().requests == calls + 1


def test_flat_bucket_is_read_by_json(server: GCSServerWithGRPC, name: str) -> None:
    bucket = server.create_bucket(name)
    put(server, bucket, "a", pattern(300_000))
    calls = server.grpc_statistics().requests
    body = """
        whole, part, tail = await asyncio.gather(
            filesystem._cat_file(f"{bucket}/a"),
            filesystem._cat_file(f"{bucket}/a", 1000, 1007),
            filesystem._cat_file(f"{bucket}/a", -8),
        )
        assert whole == b"".join(number.to_bytes(4, "big") for number in range(75_000))
        assert (part, tail) == (whole[1000:1007], whole[-8:])
        assert filesystem._storage_control_client is not None and filesystem._grpc_client is None
        return not filesystem._session.closed
    """
    assert run_client(server, bucket, body) == (True, [])
    # Three at once ask for the kind of the bucket, each for itself, and for nothing else.
    assert server.grpc_statistics().requests == calls + 3


def test_zonal_bucket_is_read_by_grpc(server: GCSServerWithGRPC, name: str) -> None:
    bucket = server.create_bucket(name, "zonal")
    put(server, bucket, "a/small", pattern(1000))
    put(server, bucket, "a/large", pattern(20 * 2**20 + 6))
    put(server, bucket, "a/empty", b"")
    body = """
        expected = b"".join(number.to_bytes(4, "big") for number in range(5 * 2**20 + 2))[:-2]
        assert await filesystem._cat_file(f"{bucket}/a/small") == expected[:1000]
        assert await filesystem._cat_file(f"{bucket}/a/empty") == b""
        assert await filesystem._cat_file(f"{bucket}/a/large") == expected
        assert await filesystem._cat_file(f"{bucket}/a/large", concurrency=4) == expected
        for start, stop in [(0, 1), (5, 5), (2**21 - 3, 2**21 + 3), (-7, None), (-7, -2), (20 * 2**20, 2**30)]:
            assert await filesystem._cat_file(f"{bucket}/a/large", start, stop) == expected[start:stop], (start, stop)
        ranges = [(start, start + 9) for start in range(0, 10**7, 10**5)]
        assert await asyncio.gather(
            *(filesystem._cat_file(f"{bucket}/a/large", start, stop) for start, stop in ranges)
        ) == [expected[start:stop] for start, stop in ranges]
        for missing in ("a/missing", "missing"):
            try:
                await filesystem._cat_file(f"{bucket}/{missing}")
            except FileNotFoundError:
                continue
            raise AssertionError(missing)
        return "right"
    """
    assert run_client(server, bucket, body) == ("right", [])


def test_zonal_read_leaves_all_open_that_gcsfs_can_hold(server: GCSServerWithGRPC, name: str) -> None:
    bucket = server.create_bucket(name, "zonal")
    put(server, bucket, "a", pattern(10 * 2**20))
    seen = server.grpc_statistics()
    body = """
        await filesystem._cat_file(f"{bucket}/a", concurrency=2)
        assert not filesystem._session.closed
        assert str(filesystem._storage_control_client.transport.grpc_channel.get_state()).endswith("READY")
        assert str(filesystem._grpc_client.grpc_client.transport.grpc_channel.get_state()).endswith("READY")
        downloaders = [one for queue in filesystem._mrd_pool_cache._mrd_queues.values() for one in queue]
        assert downloaders and all(one.is_stream_open for one in downloaders)
        assert filesystem._memmove_executor._threads
        return len(downloaders)
    """
    downloaders, logged = run_client(server, bucket, body)
    assert (downloaders, logged) == (2, [])
    later = server.grpc_statistics()
    assert later.opened - seen.opened == 2
    # Not always more: gcsfs looks for a folder of that name too, unless the object is found before.
    assert later.requests - seen.requests >= 1 + downloaders
    assert server.wait_for_connections(0) == 0


def test_zonal_bucket_is_written_by_grpc(server: GCSServerWithGRPC, name: str) -> None:
    bucket = server.create_bucket(name, "zonal")
    body = """
        content = bytes(range(256)) * 20_000
        await filesystem._pipe_file(f"{bucket}/a/x", content)
        assert await filesystem._cat_file(f"{bucket}/a/x") == content
        await filesystem._pipe_file(f"{bucket}/a/x", b"new", finalize_on_close=True)
        assert await filesystem._cat_file(f"{bucket}/a/x") == b"new"
        assert (await filesystem._info(f"{bucket}/a/x"))["timeFinalized"]
        await filesystem._pipe_file(f"{bucket}/a/y", b"")
        assert await filesystem._cat_file(f"{bucket}/a/y") == b""
        assert "timeFinalized" not in await filesystem._info(f"{bucket}/a/y")
        await filesystem._rm(f"{bucket}/a", recursive=True)
        return await filesystem._find(bucket)
    """
    assert run_client(server, bucket, body) == ([], [])


@pytest.mark.parametrize("kind", ["hierarchical", "zonal"])
def test_folders_are_listed(server: GCSServerWithGRPC, name: str, kind: Any) -> None:
    bucket = server.create_bucket(name, kind)
    for key in ("a/b/x", "a/y", "z"):
        put(server, bucket, key, b"x")
    body = """
        assert (await filesystem._info(f"{bucket}/a/b"))["type"] == "directory"
        assert not await filesystem._exists(f"{bucket}/a/c")
        names = [await filesystem._ls(f"{bucket}/a", detail=False), await filesystem._find(bucket, withdirs=True)]
        return [[name.removeprefix(bucket) for name in found] for found in names]
    """
    assert run_client(server, bucket, body) == ([["/a/b", "/a/y"], ["/a", "/a/b", "/a/b/x", "/a/y", "/z"]], [])


def test_without_the_environment_there_is_no_channel(server: GCSServerWithGRPC, name: str) -> None:
    bucket = server.create_bucket(name)
    put(server, bucket, "a", b"x")
    body = "return (await filesystem._cat_file(f'{bucket}/a')).decode()"
    result, logged = run_client(server, bucket, body, options={"retry_timeout": 0.05}, trusting=False)
    assert result == "x"
    assert "Could not determine bucket type" in logged[0]


def test_requests_and_calls_wait() -> None:
    with gcs_grpc_server(latency=0.2) as server:
        bucket = server.create_bucket("bucket")
        body = """
            started = asyncio.get_running_loop().time()
            await filesystem._lookup_bucket_type(bucket)
            called = asyncio.get_running_loop().time()
            await filesystem._ls(bucket)
            return [called - started, asyncio.get_running_loop().time() - called]
        """
        (call, request), logged = run_client(server, bucket, body)
        assert logged == []
        assert call > 0.2
        assert request > 0.2
        assert server.requests() == 3
        assert server.grpc_statistics().requests == 1


async def test_http_comes_in_single_bytes(server: GCSServerWithGRPC) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for byte in b"GET /storage/v1/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.001)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("first", [b"", b"P", b"PRI", b"\x16\x03\x01"])
async def test_connections_that_end_early_are_counted(server: GCSServerWithGRPC, first: bytes) -> None:
    assert server.wait_for_connections(0) == 0
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(first)
        assert server.wait_for_connections(1) == 1
    assert server.wait_for_connections(0) == 0
