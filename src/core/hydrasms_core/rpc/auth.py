"""Who may call: internal services by token or certificate, and accounts by API key through the edge.

Every call carries `authorization: Bearer <service token>`, or comes over a connection whose client has shown a
certificate with one of the names that are trusted; either is enough. The edge adds `hydrasms-key-digest`, the
SHA-256 of the API key that it was given: the call then speaks for that key's account and reaches only methods that
have a `google.api.http` annotation. A call without a digest is an internal service's own.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
from google.api import annotations_pb2
from google.protobuf.descriptor import FileDescriptor

from hydrasms_base.clock import Clock
from hydrasms_base.log import get_logger
from hydrasms_core.caller import Caller, calling
from hydrasms_core.errors import DomainError, InvalidServiceToken, PermissionDenied
from hydrasms_core.rpc.errors import abort
from hydrasms_core.rpc.interceptors import (
    Context,
    Handler,
    Proceed,
    metadata_value,
)

AUTHORIZATION = "authorization"
KEY_DIGEST = "hydrasms-key-digest"
_BEARER = "Bearer "
_RELOAD_AFTER_S = 0.5
# Where gRPC keeps a certificate's names. A server without TLS has neither.
_NAME_PLACES = ("x509_common_name", "x509_subject_alternative_name")

OPEN_METHODS = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})

log = get_logger(__name__)


class ApiKeys(Protocol):
    """What authentication needs of the accounts."""

    async def account_of(self, digest: str) -> str:
        """Return the account that a key speaks for; raises UnknownApiKey or ApiKeyDisabled."""
        ...


class ServiceTokens:
    """The service tokens of a file, one a line; what is removed from the file is refused within a second.

    Tokens are compared by digest in constant time and never kept in the clear.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._digests = self._load()
        self._loaded_at = clock.monotonic()

    def accepts(self, token: str) -> bool:
        """Tell whether a token is one of the file's."""
        now = self._clock.monotonic()
        if now - self._loaded_at > _RELOAD_AFTER_S:
            self._loaded_at = now
            self._reload()
        given = hashlib.sha256(token.encode()).digest()
        # Every token is compared, so that the time says nothing about which one came close.
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0

    def _reload(self) -> None:
        try:
            self._digests = self._load()
        except OSError as error:
            # A file that is being replaced may be gone for a moment; one that stays away locks everybody out.
            self._digests = []
            log.error("service_tokens_unreadable", path=str(self._path), error=error.strerror)

    def _load(self) -> list[bytes]:
        lines = self._path.read_text().split()
        return [hashlib.sha256(line.encode()).digest() for line in lines]


def account_methods(files: Iterable[FileDescriptor]) -> Mapping[str, bool]:
    """Return every method of the given files, and whether an account may call it: it has an HTTP annotation."""
    return {
        f"/{service.full_name}/{method.name}": method.GetOptions().HasExtension(annotations_pb2.http)
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


class Authentication:
    """Finds out who calls, or refuses."""

    def __init__(
        self,
        tokens: ServiceTokens,
        keys: ApiKeys,
        methods: Mapping[str, bool],
        *,
        trusted_names: frozenset[str] = frozenset(),
    ) -> None:
        self._tokens = tokens
        self._trusted_names = {name.encode() for name in trusted_names}
        self._keys = keys
        self._methods = methods

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """Make the caller known to all that runs below."""
        if method in OPEN_METHODS:
            return await proceed(request, context)
        with calling(await self._authenticate(method, context)):
            return await proceed(request, context)

    def guard_stream(self, method: str, handler: Handler) -> Handler:
        """Let only callers with a token have a stream; those of reflection are the only ones."""
        if method in OPEN_METHODS:
            return handler
        stream: Any = handler.stream_stream
        if stream is None:
            raise TypeError(f"{method}: only streams in both directions are guarded")

        async def behaviour(requests: Any, context: Context) -> Any:
            try:
                await self._authenticate(method, context)
            except DomainError as error:
                await abort(context, error)
            async for response in stream(requests, context):
                yield response

        return grpc.stream_stream_rpc_method_handler(
            cast("Any", behaviour), handler.request_deserializer, handler.response_serializer
        )

    async def _authenticate(self, method: str, context: Context) -> Caller:
        if not self._has_token(context) and not self._has_trusted_name(context):
            raise InvalidServiceToken(
                "Send the service token as metadata: authorization: Bearer <token>. "
                "It lies in service.token in the server's data directory. "
                "Or connect with a certificate that the server's HYDRASMS_TLS_ALLOWED names."
            )
        digest = metadata_value(context, KEY_DIGEST)
        if digest is None:
            return Caller(account_id=None)
        account_id = await self._keys.account_of(digest)
        if not self._methods.get(method, False):
            raise PermissionDenied("An API key cannot call this; it is for operators.")
        return Caller(account_id=account_id)

    def _has_token(self, context: Context) -> bool:
        header = metadata_value(context, AUTHORIZATION)
        return (
            header is not None and header.startswith(_BEARER) and self._tokens.accepts(header[len(_BEARER) :])
        )

    def _has_trusted_name(self, context: Context) -> bool:
        """Tell whether the caller has shown a certificate of the right name; gRPC has verified it by then."""
        identity: Mapping[str, Iterable[bytes]] = context.auth_context()
        return any(name in self._trusted_names for place in _NAME_PLACES for name in identity.get(place, ()))
