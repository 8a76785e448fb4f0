"""Certificates for local test servers, created for each test run."""

# trustme's signatures also name a type of pyOpenSSL, which is not installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Files:
    """The client's PEM files.

    Attributes:
        ca: The authority's certificate, for `SSL_CERT_FILE`.
        certificate: A client's certificate (with its chain).
        key: The key of that certificate.
    """

    ca: Path
    certificate: Path
    key: Path


class Authority:
    """An unknown certificate authority that issues the server's and the client's certificates."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def server_context(self, *names: str, client_certificates: bool = False) -> ssl.SSLContext:
        """The value for a server's `tls=`.

        Args:
            names: Host names in addition to localhost, 127.0.0.1 and ::1.
            client_certificates: Reject clients without a certificate of this authority.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("localhost", "127.0.0.1", "::1", *names).configure_cert(context)
        if client_certificates:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context

    def write(self, folder: Path) -> Files:
        """Writes a client's files to a directory."""
        files = Files(folder / "ca.pem", folder / "client.pem", folder / "client.key")
        client = self._ca.issue_cert("client@example.org")
        self._ca.cert_pem.write_to_path(files.ca)
        for number, blob in enumerate(client.cert_chain_pems):
            blob.write_to_path(files.certificate, append=number > 0)
        client.private_key_pem.write_to_path(files.key)
        return files
