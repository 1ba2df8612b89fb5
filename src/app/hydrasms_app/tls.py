"""The identity of a process on the network: its certificate, its key, and whose certificates it trusts.

A core shows it to its callers and asks for theirs; an edge and the command line show it to the core.
"""

import datetime
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings

CORE_NAME = "hydrasms-core"
"""The name that a core's certificate carries beside its addresses, for clients that know several addresses."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, and the authority that the other side's certificate must come from."""

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes

    def for_server(self) -> grpc.ServerCredentials:
        """Return credentials that let nobody in who has no certificate of the authority's."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.authority, require_client_auth=True
        )

    def for_client(self) -> grpc.ChannelCredentials:
        """Return credentials that trust servers of the authority's alone."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def load_identity(settings: Settings) -> Identity | None:
    """Return the identity that the settings name, checked; None where they name none. Raises Problem."""
    certificate, key, authority = settings.tls_cert, settings.tls_key, settings.tls_ca
    if certificate is None or key is None or authority is None:
        return None
    identity = Identity(_read(certificate), _read(key), _read(authority))
    if key.stat().st_mode & stat.S_IROTH:
        raise Problem(f"everybody may read the key {key}: take that away with chmod o= {key}")
    _check(certificate, key, authority)
    _check_dates(certificate, identity.certificate)
    return identity


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None


def _check(certificate: Path, key: Path, authority: Path) -> None:
    """Raise Problem for files that gRPC would refuse without saying which, or only when somebody connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password is refused: nobody is there to be asked for it.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise Problem(
            f"{certificate} and {key} are not a certificate and its key, without a password, in PEM "
            f"({error.reason or 'not readable'})"
        ) from None
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise Problem(
            f"{authority} holds no authority's certificate in PEM ({error.reason or 'not readable'})"
        ) from None


def _check_dates(path: Path, pem: bytes) -> None:
    """Raise Problem for a certificate that nobody will accept, instead of leaving that to every connection."""
    # It takes longer to import than a command takes to call, and most have no certificate.
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(pem)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= datetime.datetime.now(datetime.UTC) <= ends:
        raise Problem(f"the certificate {path} is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, not today")
