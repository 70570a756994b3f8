"""A server of Azure's blobs, by Azurite, for adlfs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers._handle import BucketServer
from tests.servers._process import REPOSITORY_ROOT, run_server

# The one account that Azurite has from the start; its key is the same, and public, everywhere.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

# Where `.ci/install_azurite` puts it.
INSTALLED = Path("~/.cache/managed-store-tests/azurite").expanduser()


def azurite_program() -> str | None:
    """The Azurite to run: of AZURITE_BLOB, PATH, this checkout or `.ci/install_azurite`; None if there is none."""
    if named := os.environ.get("AZURITE_BLOB"):
        return shutil.which(named)
    folders = [REPOSITORY_ROOT / "node_modules/.bin", INSTALLED / "node_modules/.bin"]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])
    # It is a script for node.
    return shutil.which("azurite-blob", path=path) if shutil.which("node") else None


def azurite_available() -> bool:
    """Whether `azure_server` can be used on this machine."""
    return azurite_program() is not None


@dataclass(frozen=True, kw_only=True)
class AzureServer(BucketServer):
    """A running Azurite with one account, which keeps its connections alive."""

    @property
    def connection_string(self) -> str:
        """All that a client needs, in the form of Azure's SDK."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.url}/{ACCOUNT};"
        )

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for adlfs."""
        return {"connection_string": self.connection_string}

    def create_bucket(self, name: str) -> str:
        """Make an empty container, which is what Azure calls a bucket; returns its name."""
        # Only here: each request must be signed, and the tests of other servers should import fast.
        from azure.storage.blob import ContainerClient

        with ContainerClient.from_connection_string(self.connection_string, name, retry_total=0) as client:
            client.create_container()
        return name

    create_container = create_bucket


@contextmanager
def azure_server() -> Iterator[AzureServer]:
    """Serve containers from memory, none at first."""
    program = azurite_program()
    if program is None:
        raise FileNotFoundError("Azurite is not installed: .ci/install_azurite does that")
    with run_server("serve_azure", {"program": program}) as announced:
        yield AzureServer(url=announced["url"], port=announced["port"], statistics_port=announced["statistics_port"])
