"""Certificates for a trial: an authority of one's own, a core's certificate, and one for its callers.

An operator with an authority already uses that one; nothing here is needed to serve.
"""

import datetime
import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hydrasms_app.problems import Problem
from hydrasms_app.tls import CORE_NAME
from hydrasms_base.secret import write_new_secret

CLIENT_NAME = "hydrasms-service"
"""The name that a core lets in without a token, unless HYDRASMS_TLS_ALLOWED says otherwise."""

_LOCAL = ("localhost", "127.0.0.1", "::1")
# Hosts whose clocks differ a little must agree that a new certificate is valid.
_BACKDATED = datetime.timedelta(hours=1)


class TrialCertificates(NamedTuple):
    """The files that were made."""

    authority: Path
    core: Path
    core_key: Path
    client: Path
    client_key: Path


class _Issued(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_trial_certificates(folder: Path, hosts: Sequence[str], days: int) -> TrialCertificates:
    """Make all files in a folder and return where they are; raises Problem, also where one of them is there.

    `hosts` are the names and addresses that the core is reached by, beside this host's own.
    """
    files = TrialCertificates(
        *(folder / name for name in ("ca.crt", "core.crt", "core.key", "client.crt", "client.key"))
    )
    authority_key = folder / "ca.key"
    for path in (*files, authority_key):
        if path.exists():
            raise Problem(f"{path} is there already: name another folder, or remove it")
    until = datetime.timedelta(days=days)
    authority = _issue("hydrasms trial authority", until, None, _for_authority())
    core = _issue(CORE_NAME, until, authority, _for_core((*_LOCAL, CORE_NAME, *hosts)))
    client = _issue(CLIENT_NAME, until, authority, _for_client())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key_path, certificate_path, issued in (
            (authority_key, files.authority, authority),
            (files.core_key, files.core, core),
            (files.client_key, files.client, client),
        ):
            write_new_secret(key_path, _key_pem(issued.key))
            write_new_secret(certificate_path, _pem(issued.certificate))
            certificate_path.chmod(0o644)
    except OSError as error:
        raise Problem(f"cannot write to {folder}: {error.strerror}") from None
    return files


def _issue(
    name: str,
    valid_for: datetime.timedelta,
    authority: _Issued | None,
    extensions: Iterator[tuple[x509.ExtensionType, bool]],
) -> _Issued:
    """Make a key and a certificate for it, signed by an authority or, without one, by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = authority.key if authority is not None else key
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + valid_for)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return _Issued(builder.sign(signer, hashes.SHA256()), key)


def _for_authority() -> Iterator[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=True, path_length=0), True
    yield _key_usage(signs_certificates=True), True


def _for_core(hosts: Sequence[str]) -> Iterator[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _key_usage(signs_certificates=False), True
    # A core's host runs the command line too, with the same certificate.
    yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False
    yield x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)]), False


def _for_client() -> Iterator[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _key_usage(signs_certificates=False), True
    # It must not pass for a core.
    yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False
    yield x509.SubjectAlternativeName([x509.DNSName(CLIENT_NAME)]), False


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise Problem(f"{host!r} is neither an address nor a name in ASCII") from None


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode().rstrip()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
        .rstrip()
    )
