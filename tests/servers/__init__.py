"""Real servers for the tests, each in a process of its own on the loopback interface.

Each context manager gives a handle: plain frozen data with the server's address, and with methods that
ask the server how many connections it sees. `serve_*.py` is what runs in the server's process; none of
it is imported here, so that the tests import fast and the servers start fast.
"""

from __future__ import annotations

from tests.servers._handle import BucketServer, FolderServer, RunningServer
from tests.servers._process import ServerProcessError
from tests.servers._statistics import ServerStatistics
from tests.servers.gcs import GCSServer, gcs_server
from tests.servers.http import http_server
from tests.servers.nginx import nginx_available, nginx_server
from tests.servers.s3 import S3Server, s3_server

__all__ = [
    "BucketServer",
    "FolderServer",
    "GCSServer",
    "RunningServer",
    "S3Server",
    "ServerProcessError",
    "ServerStatistics",
    "gcs_server",
    "http_server",
    "nginx_available",
    "nginx_server",
    "s3_server",
]
