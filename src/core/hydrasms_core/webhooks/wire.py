"""Webhooks and deliveries as protobuf."""

from google.protobuf.duration_pb2 import Duration

from hydrasms.webhooks.v1 import webhook_service_pb2 as pb
from hydrasms_core.errors import InvalidArgument
from hydrasms_core.paging import Page
from hydrasms_core.rpc.wire import timestamp
from hydrasms_core.webhooks.model import (
    Attempt,
    Delivery,
    DeliveryStatus,
    DeliveryType,
    Endpoint,
    OwnWebhook,
    Redelivered,
    Rotated,
)

_TYPES = {kind: pb.DeliveryType.Value(f"DELIVERY_TYPE_{kind.name}") for kind in DeliveryType}
_STATUSES = {status: pb.DeliveryStatus.Value(f"DELIVERY_STATUS_{status.name}") for status in DeliveryStatus}
_STATUS_OF: dict[int, DeliveryStatus | None] = {pb.DELIVERY_STATUS_UNSPECIFIED: None} | {
    number: status for status, number in _STATUSES.items()
}


def status_wanted(request: pb.ListDeliveriesRequest) -> DeliveryStatus | None:
    """Return which deliveries are asked for, None for all; raises InvalidArgument for a status that there is not."""
    # Enums are open: a caller may send a number that only a later version knows.
    if request.status not in _STATUS_OF:
        raise InvalidArgument("status is PENDING, DELIVERED or DEAD.", field="status")
    return _STATUS_OF[request.status]


def overlap_ms(request: pb.RotateSecretRequest) -> int | None:
    """Return how long the old secret is still used, in milliseconds rounded down; None where it is not said."""
    if not request.HasField("overlap"):
        return None
    return (request.overlap.seconds * 1_000_000_000 + request.overlap.nanos) // 1_000_000


def endpoint(value: Endpoint, *, now_ms: int) -> pb.Endpoint:
    """Return an endpoint as its owner sees it."""
    until_ms = value.previous_until_ms
    return pb.Endpoint(
        id=value.id,
        account_id=value.account_id,
        shortcode=value.shortcode,
        url=value.url,
        retries=value.retries,
        failing_since=None if value.failing_since_ms is None else timestamp(value.failing_since_ms),
        disabled_at=None if value.disabled_at_ms is None else timestamp(value.disabled_at_ms),
        disabled_reason=value.disabled_reason,
        previous_secret_until=None if until_ms is None or until_ms <= now_ms else timestamp(until_ms),
    )


def rotated(value: Rotated, *, now_ms: int) -> pb.RotateSecretResponse:
    """Return the answer to a rotation, with the new secret."""
    return pb.RotateSecretResponse(
        signing_secret=value.signing.reveal(), endpoint=endpoint(value.endpoint, now_ms=now_ms)
    )


def own_webhook(value: OwnWebhook, *, now_ms: int) -> pb.SetAccountWebhookResponse:
    """Return the answer to setting an account's own webhook, with its secret where this call made it."""
    return pb.SetAccountWebhookResponse(
        endpoint=None if value.endpoint is None else endpoint(value.endpoint, now_ms=now_ms),
        signing_secret="" if value.signing is None else value.signing.reveal(),
    )


def delivery(value: Delivery) -> pb.Delivery:
    """Return a delivery as its owner sees it."""
    next_ms = value.next_attempt_at_ms
    return pb.Delivery(
        id=value.id,
        account_id=value.account_id,
        endpoint_id=value.endpoint_id,
        type=_TYPES[value.type],
        subject_id=value.subject_id,
        status=_STATUSES[value.status],
        last_http_status=value.last_status,
        next_attempt_at=None if next_ms is None else timestamp(next_ms),
        created_at=timestamp(value.created_at_ms),
        attempts=[_attempt(each) for each in value.attempts],
    )


def deliveries(page: Page[Delivery]) -> pb.ListDeliveriesResponse:
    """Return a page of deliveries."""
    return pb.ListDeliveriesResponse(
        deliveries=[delivery(row) for row in page.rows], next_page_token=page.next_token
    )


def redelivered(value: Redelivered) -> pb.RedeliverDeadResponse:
    """Return how many deliveries are tried again."""
    return pb.RedeliverDeadResponse(redelivered=value.number, more=value.more)


def _attempt(value: Attempt) -> pb.DeliveryAttempt:
    return pb.DeliveryAttempt(
        number=value.number,
        at=timestamp(value.at_ms),
        duration=_duration(value.duration_ms),
        http_status=value.http_status,
        failure=value.failure,
        answer=value.answer,
    )


def _duration(millis: int) -> Duration:
    return Duration(seconds=millis // 1_000, nanos=millis % 1_000 * 1_000_000)
