"""For the tests of the servers themselves: filesystems of fsspec's family, closed by hand.

Nothing of `managed_store` is used: it is what these servers are to test.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from tests.servers._handle import RunningServer
from tests.servers.azure import azurite_available
from tests.servers.nginx import nginx_available


def _skip_unless(available: bool, name: str) -> pytest.MarkDecorator:
    # Where nothing may be missing, these tests run, and fail because the server cannot be started.
    return pytest.mark.skipif(
        not available and os.environ.get("MANAGED_STORE_TEST_ALL") != "1", reason=f"{name} is not installed"
    )


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip where one of these packages is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    return _skip_unless(not missing, " and ".join(missing or modules))


needs_nginx = _skip_unless(nginx_available(), "nginx")
needs_azurite = _skip_unless(azurite_available(), "Azurite")


def private_filesystem(filesystem_class: Callable[..., Any], server: RunningServer, **options: Any) -> Any:
    """An asynchronous filesystem that no cache knows."""
    merged = {**server.storage_options, **options}
    return filesystem_class(asynchronous=True, skip_instance_cache=True, **merged)


@asynccontextmanager
async def client(filesystem_class: Callable[..., Any], server: RunningServer, **options: Any) -> AsyncIterator[Any]:
    """A filesystem that is closed at the end of the block."""
    filesystem = private_filesystem(filesystem_class, server, **options)
    try:
        yield filesystem
    finally:
        await close_filesystem(filesystem)


async def close_filesystem(filesystem: Any) -> None:
    """Close what the filesystem has open; to be awaited on the loop that opened it."""
    if hasattr(filesystem, "_s3creator"):
        if filesystem._s3creator is not None:
            await filesystem._s3creator.__aexit__(None, None, None)
            filesystem._s3creator = filesystem._s3 = None
        return
    if hasattr(filesystem, "_close_resources"):
        await filesystem._close_resources()
        filesystem._memmove_executor.shutdown()
    if filesystem._session is not None:
        await filesystem._session.close()
        filesystem._session = None
