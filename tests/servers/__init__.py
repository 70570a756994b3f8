"""Real servers for the tests, each in a process of its own on the loopback interface.

Each context manager gives a handle: plain frozen data with the server's address, and with methods that
ask the server how many connections it sees. `serve_*.py` is what runs in the server's process; none of
it is imported here, so that the tests import fast and the servers start fast.
"""

from __future__ import annotations

from tests.servers._handle import AccountServer, BucketServer, FolderServer, RunningServer
from tests.servers._process import ServerProcessError
from tests.servers._statistics import ServerStatistics
from tests.servers.azure import AzureServer, azure_server, azurite_available
from tests.servers.faults import FaultProxy, fault_proxy
from tests.servers.ftp import FTPServer, ftp_server
from tests.servers.gcs import GCSServer, gcs_server
from tests.servers.gcs_grpc import GCSServerWithGRPC, gcs_grpc_server
from tests.servers.http import http_server
from tests.servers.nginx import nginx_available, nginx_server
from tests.servers.s3 import S3Server, s3_server
from tests.servers.sftp import SFTPServer, sftp_server
from tests.servers.smb import SMBServer, smb_server
from tests.servers.webdav import WebDAVServer, webdav_server
from tests.servers.webhdfs import WebHDFSServer, webhdfs_server

__all__ = [
    "AccountServer",
    "AzureServer",
    "BucketServer",
    "FTPServer",
    "FaultProxy",
    "FolderServer",
    "GCSServer",
    "GCSServerWithGRPC",
    "RunningServer",
    "S3Server",
    "SFTPServer",
    "SMBServer",
    "ServerProcessError",
    "ServerStatistics",
    "WebDAVServer",
    "WebHDFSServer",
    "azure_server",
    "azurite_available",
    "fault_proxy",
    "ftp_server",
    "gcs_grpc_server",
    "gcs_server",
    "http_server",
    "nginx_available",
    "nginx_server",
    "s3_server",
    "sftp_server",
    "smb_server",
    "webdav_server",
    "webhdfs_server",
]
