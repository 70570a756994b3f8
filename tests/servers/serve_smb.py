"""What `smb_server` runs: impacket's SMB server on a folder, mended where smbprotocol takes it at its word."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import Any, ClassVar

from impacket import smb3structs
from impacket.nt_errors import STATUS_NO_SUCH_FILE, STATUS_OBJECT_NAME_NOT_FOUND, STATUS_SUCCESS
from impacket.ntlm import compute_lmhash, compute_nthash
from impacket.smbserver import SMBSERVER, SimpleSMBServer

from tests.servers._child import Announcement, Config, folder_to_serve, run_child
from tests.servers._statistics import Tally, publish_statistics

# What became of a file, for what was to become of it. impacket answers with the question.
ACTIONS = {
    smb3structs.FILE_SUPERSEDE: 0,
    smb3structs.FILE_OPEN: 1,
    smb3structs.FILE_CREATE: 2,
    smb3structs.FILE_OPEN_IF: 1,
    smb3structs.FILE_OVERWRITE: 3,
    smb3structs.FILE_OVERWRITE_IF: 3,
}


class CountingServer(SMBSERVER):
    """A thread per connection, which ends when the client closes it."""

    tally: ClassVar[Tally]
    daemon_threads = True
    request_queue_size = 1024

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self.tally.connection_opened()
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.tally.connection_closed()

    def processRequest(self, connId: Any, data: bytes) -> Any:  # noqa: N802, N803 - impacket's names
        self.tally.request_received()
        return super().processRequest(connId, data)


def mend_create(server: CountingServer) -> None:
    """Let it answer with what became of a file, and with the status that clients know for one that is not there."""

    def create(connection: Any, server: Any, packet: Any) -> Any:
        commands, packets, status = original(connection, server, packet)
        if status == STATUS_NO_SUCH_FILE:
            status = STATUS_OBJECT_NAME_NOT_FOUND
        elif status == STATUS_SUCCESS:
            commands[0]["CreateAction"] = ACTIONS[commands[0]["CreateAction"]]
        return commands, packets, status

    original = server.hookSmb2Command(smb3structs.SMB2_CREATE, create)


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    # Otherwise it logs each command.
    logging.disable(logging.CRITICAL)
    root = folder_to_serve(config, cleanup)
    CountingServer.tally = tally = Tally()
    server = SimpleSMBServer("127.0.0.1", 0, smbserverclass=CountingServer)
    server.addShare(config["share"], root)
    server.setSMB2Support(True)
    # A new one for each client.
    server.setSMBChallenge("")
    password = config["password"]
    server.addCredential(config["username"], 0, compute_lmhash(password), compute_nthash(password))
    mend_create(server.getServer())
    threading.Thread(target=server.start, name="smb", daemon=True).start()
    port = server.getServer().server_address[1]
    return {
        "url": f"smb://127.0.0.1:{port}/{config['share']}",
        "port": port,
        "statistics_port": publish_statistics(tally.read),
        "root": root,
    }


if __name__ == "__main__":
    run_child(serve)
