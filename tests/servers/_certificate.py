"""A certificate for a server on this machine, from an authority that lives as long as the server."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """The files which a server with TLS needs, and the one that its clients need."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


def make_certificate(cleanup: ExitStack) -> Certificate:
    """Write a certificate for 127.0.0.1, ::1 and localhost into a temporary folder."""
    import trustme  # only here: most servers run without TLS and should start fast

    folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="certificate-")))
    certificate = Certificate(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "::1", "localhost")
    authority.cert_pem.write_to_path(str(certificate.ca_file))
    issued.private_key_pem.write_to_path(str(certificate.key_file))
    for position, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(certificate.certificate_file), append=position > 0)
    return certificate
