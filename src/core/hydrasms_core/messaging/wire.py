"""Messages as protobuf."""

from collections.abc import Sequence

from hydrasms.messaging.v1 import forwarding_service_pb2, message_pb2, messaging_service_pb2
from hydrasms_core.carriers.base import InboundText
from hydrasms_core.errors import DomainError
from hydrasms_core.inbound.model import Outcome as InboundOutcome
from hydrasms_core.inbound.model import Received
from hydrasms_core.messaging.accept import Outcome
from hydrasms_core.messaging.model import (
    Accepted,
    Draft,
    Estimate,
    Forwarded,
    InboundMessage,
    Message,
    Status,
)
from hydrasms_core.messaging.text import Encoding
from hydrasms_core.paging import Page
from hydrasms_core.rpc.errors import to_status
from hydrasms_core.rpc.wire import fill_time, millis, timestamp

_STATUSES = {status: message_pb2.MessageStatus.Value(f"MESSAGE_STATUS_{status.name}") for status in Status}
_OUTCOMES = {
    outcome: messaging_service_pb2.InboundOutcome.Value(f"INBOUND_OUTCOME_{outcome.name}")
    for outcome in InboundOutcome
}
_ENCODINGS = {encoding: message_pb2.Encoding.Value(f"ENCODING_{encoding.name}") for encoding in Encoding}


def draft(
    request: messaging_service_pb2.SendMessageRequest
    | messaging_service_pb2.BatchSendMessagesItem
    | forwarding_service_pb2.ForwardedSend,
) -> Draft:
    """Return what a caller asks to send."""
    key = request.idempotency_key if request.HasField("idempotency_key") else None
    return Draft(request.recipient, request.content, key)


def message(value: Message) -> message_pb2.Message:
    """Return a message as callers see it."""
    packed = message_pb2.Message()
    _fill(packed, value)
    return packed


def sent(value: Accepted) -> messaging_service_pb2.SendMessageResponse:
    """Return the answer to a send."""
    packed = messaging_service_pb2.SendMessageResponse(idempotent_replayed=value.replayed)
    _fill(packed.message, value.message)
    return packed


def _fill(packed: message_pb2.Message, value: Message) -> None:
    """Fill a message where it stands: made apart and then put there, it takes twice as long."""
    packed.id = value.id
    packed.account_id = value.account_id
    packed.sender = value.sender
    number, recipient = value.recipient, packed.recipient
    recipient.e164 = number.e164
    recipient.country_iso2 = number.country_iso2
    recipient.country_iso3 = number.country_iso3
    recipient.calling_code = number.calling_code
    packed.content = value.content
    packed.status = _STATUSES[value.status]
    packed.credits = value.credits
    packed.encoding = _ENCODINGS[value.encoding]
    packed.segments = value.segments
    fill_time(packed.created_at, value.created_at_ms)
    fill_time(packed.updated_at, value.updated_at_ms)
    fill_time(packed.expires_at, value.expires_at_ms)
    # A message that was just accepted has none of these.
    if value.attempts:
        packed.carrier = value.carrier
        packed.attempts = value.attempts
        packed.duplicate_risk = value.duplicate_risk
    if value.failure:
        packed.failure = value.failure


def batch(outcomes: Sequence[Outcome]) -> messaging_service_pb2.BatchSendMessagesResponse:
    """Return the answer to a batch."""
    return messaging_service_pb2.BatchSendMessagesResponse(results=[_result(each) for each in outcomes])


def forwarded(request: forwarding_service_pb2.ForwardSendsRequest) -> list[Forwarded]:
    """Return the sends that an edge passes on."""
    return [
        Forwarded(item.key_digest, item.request_id, draft(item), item.timeout_ms) for item in request.items
    ]


def forwarding(outcomes: Sequence[Outcome]) -> forwarding_service_pb2.ForwardSendsResponse:
    """Return what became of the sends that an edge passed on."""
    response = forwarding_service_pb2.ForwardSendsResponse()
    results = response.results
    for outcome in outcomes:
        result = results.add()
        if isinstance(outcome, DomainError):
            result.refused.CopyFrom(to_status(outcome))
        else:
            accepted = result.accepted
            if outcome.replayed:
                accepted.idempotent_replayed = True
            _fill(accepted.message, outcome.message)
    return response


def estimate(value: Estimate) -> messaging_service_pb2.EstimateMessageResponse:
    """Return an estimate."""
    return messaging_service_pb2.EstimateMessageResponse(
        credits=value.credits,
        encoding=_ENCODINGS[value.encoding],
        segments=value.segments,
        units=value.units,
        non_gsm_character=value.non_gsm_character,
        non_gsm_index=value.non_gsm_index,
    )


def messages(page: Page[Message]) -> messaging_service_pb2.ListMessagesResponse:
    """Return a page of messages."""
    return messaging_service_pb2.ListMessagesResponse(
        messages=[message(row) for row in page.rows], next_page_token=page.next_token
    )


def inbound_messages(page: Page[InboundMessage]) -> messaging_service_pb2.ListInboundMessagesResponse:
    """Return a page of inbound messages."""
    return messaging_service_pb2.ListInboundMessagesResponse(
        messages=[inbound_message(row) for row in page.rows], next_page_token=page.next_token
    )


def inbound_text(request: messaging_service_pb2.ReceiveInboundRequest) -> InboundText:
    """Return a text that a carrier brings."""
    received_at_ms = millis(request.received_at) if request.HasField("received_at") else 0
    return InboundText(
        request.carrier, request.carrier_message_id, request.sender, request.text, received_at_ms
    )


def received(value: Received) -> messaging_service_pb2.ReceiveInboundResponse:
    """Return what became of a text."""
    return messaging_service_pb2.ReceiveInboundResponse(
        message=inbound_message(value.message), outcome=_OUTCOMES[value.outcome], duplicate=value.duplicate
    )


def unowned_messages(page: Page[InboundMessage]) -> messaging_service_pb2.ListUnownedInboundMessagesResponse:
    """Return a page of texts that are nobody's."""
    return messaging_service_pb2.ListUnownedInboundMessagesResponse(
        messages=[inbound_message(row) for row in page.rows], next_page_token=page.next_token
    )


def _result(outcome: Outcome) -> messaging_service_pb2.BatchSendMessagesResult:
    if isinstance(outcome, DomainError):
        return messaging_service_pb2.BatchSendMessagesResult(refused=to_status(outcome))
    return messaging_service_pb2.BatchSendMessagesResult(accepted=sent(outcome))


def inbound_message(value: InboundMessage) -> message_pb2.InboundMessage:
    """Return a text as callers see it."""
    return message_pb2.InboundMessage(
        id=value.id,
        account_id=value.account_id,
        sender=value.sender,
        shortcode=value.shortcode,
        content=value.content,
        webhook_status=value.webhook_status,
        created_at=timestamp(value.created_at_ms),
    )
