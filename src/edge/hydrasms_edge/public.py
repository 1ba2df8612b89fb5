"""The endpoints of the public contract, field for field."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from grpc.aio import AioRpcError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from hydrasms.messaging.v1 import message_pb2
from hydrasms.messaging.v1.messaging_service_pb2 import (
    ListInboundMessagesRequest,
    SendMessageRequest,
    SendMessageResponse,
)
from hydrasms_base.clock import iso_millis
from hydrasms_base.secret import Secret
from hydrasms_edge.answers import Answer
from hydrasms_edge.auth import credential, key_digest
from hydrasms_edge.body import read_message_fields
from hydrasms_edge.errors import ApiError, core_reason
from hydrasms_edge.scope import header_values, request_id_of
from hydrasms_edge.settings import EdgeSettings

if TYPE_CHECKING:
    # Known to type checkers alone; at run time there is one stub for both kinds of channel.
    from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

LISTED_MESSAGES = 100
NO_MESSAGES = "No received messages with your short code or previous short codes."

_ONLINE = orjson.dumps({"data": "SMS API Online", "server": "Team Hydra"})

_Metadata = tuple[tuple[str, str], ...]


class SendMessage(Protocol):
    """Accepts one message, as the stub's method of that name does."""

    def __call__(
        self, request: SendMessageRequest, /, *, timeout: float, metadata: _Metadata
    ) -> Awaitable[SendMessageResponse]:
        """Return the answer, or raise AioRpcError."""
        ...


async def online(_: Request) -> Response:
    """Say that the edge is up, whatever the core does."""
    return Response(_ONLINE, media_type="application/json")


class PublicMessages:
    """Sends messages and lists the inbound ones for whoever holds the request's API key."""

    def __init__(
        self,
        messaging: "MessagingServiceAsyncStub",
        send: SendMessage,
        token: Secret | None,
        settings: EdgeSettings,
    ) -> None:
        self._messaging = messaging
        self._send = send
        self._credential = credential(token)
        self._settings = settings

    async def send(self, request: Request) -> Response:
        """POST /api/messages: send one message."""
        scope = request.scope
        metadata = self._metadata(scope)
        fields = await read_message_fields(scope, request.receive, self._settings.max_body_bytes)
        recipient, content = _storable(fields.recipient), _storable(fields.content)
        try:
            sent = await self._send(
                SendMessageRequest(
                    recipient=recipient, content=content, idempotency_key=_idempotency_key(scope)
                ),
                timeout=self._settings.deadline_s,
                metadata=metadata,
            )
        except AioRpcError as error:
            if content != fields.content and core_reason(error) == "INVALID_CONTENT":
                raise ApiError("INVALID_CONTENT", "content holds half of a surrogate pair.") from None
            raise
        headers = {"idempotent-replayed": "true"} if sent.idempotent_replayed else None
        return Answer(_sent(sent.message), headers=headers)

    async def list_inbound(self, request: Request) -> Response:
        """GET /api/messages: list the newest inbound messages, newest first."""
        listed = await self._messaging.ListInboundMessages(
            ListInboundMessagesRequest(page_size=LISTED_MESSAGES),
            timeout=self._settings.deadline_s,
            metadata=self._metadata(request.scope),
        )
        if not listed.messages:
            raise ApiError("NO_MESSAGES", NO_MESSAGES)
        return Answer([_inbound(message) for message in listed.messages])

    def _metadata(self, scope: Scope) -> _Metadata:
        """Return what goes beside a call; raises ApiError: MISSING_API_KEY, UNKNOWN_API_KEY."""
        return (
            *self._credential,
            ("hydrasms-key-digest", key_digest(scope)),
            ("x-request-id", request_id_of(scope)),
        )


def _storable(text: str) -> str:
    """Return a text that protobuf can carry: NUL stands for what UTF-8 cannot hold, half of a surrogate pair.

    The core refuses NUL as it would refuse the half, and does so in its turn: after the key and the account.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\0" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def _idempotency_key(scope: Scope) -> str | None:
    """Return the idempotency key for the core to judge, or None where none was sent.

    Headers that no key could stand for become an empty one: the core refuses it in its turn, after the account.
    """
    values = header_values(scope, b"idempotency-key")
    if not values:
        return None
    return values[0].decode() if len(values) == 1 and values[0].isascii() else ""


def _sent(message: message_pb2.Message) -> dict[str, Any]:
    number = message.recipient
    return {
        "ID": message.id,
        "sent_from": message.sender,
        "sent_to": number.e164,
        "sent_to_parsed": {
            "isValid": True,
            "phoneNumber": number.e164,
            "countryIso2": number.country_iso2,
            "countryIso3": number.country_iso3,
            "countryCode": f"+{number.calling_code}",
        },
        "content": message.content,
        "owner": message.account_id,
        "creditCost": message.credits,
    }


def _inbound(message: message_pb2.InboundMessage) -> dict[str, Any]:
    arrived = message.created_at
    return {
        "id": message.id,
        "userID": message.account_id,
        "sender": message.sender,
        "shortcode": message.shortcode,
        "content": message.content,
        "webhook_status": message.webhook_status if message.HasField("webhook_status") else None,
        "created_at": iso_millis(arrived.seconds * 1_000 + arrived.nanos // 1_000_000),
    }
