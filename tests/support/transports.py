"""Every way to a core, and the certificates that the one over TLS needs."""

import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from hydrasms_app.certificates import TrialCertificates, make_trial_certificates
from hydrasms_app.settings import Settings
from hydrasms_app.tls import Identity, load_identity

SOCKETS = ("tcp", "unix", "tls")
"""The transports that have a socket, in the order in which `addresses` of a test are given."""
TRANSPORTS = ("loopback", *SOCKETS)


@functools.cache
def certificates() -> TrialCertificates:
    """Return the certificates of this test run, made once; they go with the process."""
    folder = tempfile.TemporaryDirectory(prefix="hydrasms-certs-")
    _kept.append(folder)
    return make_trial_certificates(Path(folder.name), (), 2)


_kept: list[Any] = []


def core_identity() -> Identity:
    """Return what a core shows. As a client it is known and yet not trusted: a token is still needed."""
    made = certificates()
    return _identity(made.core, made.core_key)


def client_identity() -> Identity:
    """Return what a client shows that needs no token."""
    made = certificates()
    return _identity(made.client, made.client_key)


@contextlib.asynccontextmanager
async def channel_to(address: str, identity: Identity | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel, over TLS where there is an identity."""
    opened = (
        grpc.aio.insecure_channel(address)
        if identity is None
        else grpc.aio.secure_channel(address, identity.for_client())
    )
    async with opened as channel:
        yield channel


@contextlib.asynccontextmanager
async def channels_to(addresses: Sequence[str]) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """Open a channel to each of a core's addresses and return them by the names of `SOCKETS`.

    Over TLS they show a certificate that opens nothing without a token, as the other transports do.
    """
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                channel_to(address, core_identity() if name == "tls" else None)
            )
            for name, address in zip(SOCKETS, addresses, strict=False)
        }


def _identity(certificate: Path, key: Path) -> Identity:
    loaded = load_identity(Settings(tls_cert=certificate, tls_key=key, tls_ca=certificates().authority))
    assert loaded is not None
    return loaded
