"""What `nginx_server` runs: nginx as a child of its own, which ends with it.

nginx knows no port 0, and does not watch its standard input.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, chdir
from pathlib import Path

from tests.servers._certificate import Certificate, make_certificate
from tests.servers._child import Announcement, Config, folder_to_serve, run_child
from tests.servers._statistics import ServerStatistics, publish_statistics

# Another process may take the free port before nginx does.
ATTEMPTS = 10
START_SECONDS = 5.0
STATUS_SOCKET = "status"

CONFIGURATION = """
daemon off;
# One process, which keeps the user it was started by.
master_process off;
pid "{folder}/nginx.pid";
error_log stderr;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path "{folder}/bodies";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    default_type application/octet-stream;
    client_max_body_size 0;
    keepalive_timeout 3600s;
    keepalive_requests 1000000;
    # Clients may call the server by either of its names.
    absolute_redirect off;
    server {{
        listen 127.0.0.1:{port}{ssl} backlog=1024;
        {certificate}
        location / {{
            root "{root}";
            autoindex on;
            dav_methods PUT DELETE;
            create_full_put_path on;
        }}
    }}
    server {{
        listen unix:{status};
        location / {{ stub_status; }}
    }}
}}
"""


class Nginx:
    """A running nginx, asked about itself through a socket in the current folder."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process
        self._times_asked = 0

    def wait_until_started(self) -> bool:
        """Whether it answers; False if it has ended instead, as it does when its port is taken."""
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.read_statistics()
            except OSError:
                time.sleep(0.005)
            else:
                return True
        return False

    def read_statistics(self) -> ServerStatistics:
        """Ask nginx, and take off again what the asking itself adds."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(STATUS_SOCKET)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            page = b""
            while block := connection.recv(4096):
                page += block
        self._times_asked += 1
        active, accepted, _, requests = map(int, re.findall(rb"\d+", page.partition(b"\r\n\r\n")[2])[:4])
        return ServerStatistics(active - 1, accepted - self._times_asked, requests - self._times_asked)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="nginx-")))
    certificate = make_certificate(cleanup) if config["tls"] else None
    root = folder_to_serve(config, cleanup)
    # The name of a Unix socket must be short, however deep the temporary folders are: so it is a relative one.
    cleanup.enter_context(chdir(folder))
    for _ in range(ATTEMPTS):
        nginx = _start(config["program"], root, folder, certificate)
        if nginx.wait_until_started():
            break
        nginx.stop()
    else:
        raise RuntimeError(f"nginx did not start in {ATTEMPTS} attempts")
    cleanup.callback(nginx.stop)
    return {
        "url": f"{'https' if certificate else 'http'}://127.0.0.1:{nginx.port}",
        "port": nginx.port,
        "statistics_port": publish_statistics(nginx.read_statistics),
        "ca_file": str(certificate.ca_file) if certificate else None,
        "root": root,
    }


def _start(program: str, root: str, folder: Path, certificate: Certificate | None) -> Nginx:
    port = _free_port()
    file = folder / "nginx.conf"
    tls = ""
    if certificate:
        tls = f'ssl_certificate "{certificate.certificate_file}"; ssl_certificate_key "{certificate.key_file}";'
    text = CONFIGURATION.format(
        folder=folder, status=STATUS_SOCKET, root=root, port=port, ssl=" ssl" if certificate else "", certificate=tls
    )
    file.write_text(text)
    # Without -e it would try the log file that it was built for, which may not be ours to write.
    command = [program, "-p", str(folder), "-c", str(file), "-e", "stderr"]
    return Nginx(subprocess.Popen(command, stdin=subprocess.DEVNULL), port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    run_child(serve)
