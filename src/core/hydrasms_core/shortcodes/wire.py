"""Shortcodes as protobuf."""

from hydrasms.messaging.v1 import shortcode_service_pb2 as pb
from hydrasms_base.secret import Secret
from hydrasms_core.paging import Page
from hydrasms_core.rpc.wire import timestamp
from hydrasms_core.shortcodes.model import (
    ChangedShortcode,
    HookedShortcode,
    NewShortcode,
    Routing,
    RoutingReason,
    ShortcodeChange,
)

_REASONS = {reason: pb.RoutingReason.Value(f"ROUTING_REASON_{reason.name}") for reason in RoutingReason}


def new_shortcode(request: pb.CreateShortcodeRequest, account_id: str) -> NewShortcode:
    """Return what is asked of a new shortcode."""
    return NewShortcode(
        account_id=account_id,
        word=request.word,
        webhook_url=request.webhook_url,
        secret=Secret(request.secret) if request.HasField("secret") else None,
        retries=request.retries if request.HasField("retries") else None,
        idempotency_key=request.idempotency_key if request.HasField("idempotency_key") else None,
    )


def shortcode_change(request: pb.UpdateShortcodeRequest) -> ShortcodeChange:
    """Return what to change of a shortcode."""
    return ShortcodeChange(
        webhook_url=request.webhook_url if request.HasField("webhook_url") else None,
        secret=Secret(request.secret) if request.HasField("secret") else None,
        retries=request.retries if request.HasField("retries") else None,
    )


def shortcode(value: HookedShortcode) -> pb.Shortcode:
    """Return a shortcode as callers see it."""
    packed = pb.Shortcode(
        id=value.shortcode.id,
        account_id=value.shortcode.account_id,
        word=value.shortcode.word,
        active=value.shortcode.active,
        created_at=timestamp(value.shortcode.created_at_ms),
        updated_at=timestamp(value.shortcode.updated_at_ms),
    )
    if value.hook is not None:
        packed.webhook_url = value.hook.url
        packed.retries = value.hook.retries
        packed.webhook_disabled_reason = value.hook.disabled_reason
        if value.hook.disabled_at_ms is not None:
            packed.webhook_disabled_at.CopyFrom(timestamp(value.hook.disabled_at_ms))
    return packed


def created(value: ChangedShortcode) -> pb.CreateShortcodeResponse:
    """Return the answer to a creation; it holds the secrets where there are any to show."""
    return pb.CreateShortcodeResponse(
        shortcode=shortcode(value.found),
        secret=_shown(value.made.auth),
        signing_secret=_shown(value.made.signing),
        idempotent_replayed=value.replayed,
    )


def updated(value: ChangedShortcode) -> pb.UpdateShortcodeResponse:
    """Return the answer to a change; it holds the secrets where there are any to show."""
    return pb.UpdateShortcodeResponse(
        shortcode=shortcode(value.found),
        secret=_shown(value.made.auth),
        signing_secret=_shown(value.made.signing),
    )


def shortcodes(page: Page[HookedShortcode]) -> pb.ListShortcodesResponse:
    """Return a page of shortcodes."""
    return pb.ListShortcodesResponse(
        shortcodes=[shortcode(row) for row in page.rows], next_page_token=page.next_token
    )


def routing(value: Routing) -> pb.WhoGetsResponse:
    """Return who would get a text, and why."""
    return pb.WhoGetsResponse(
        reason=_REASONS[value.reason],
        word=value.word,
        content=value.content,
        shortcode=None if value.found is None else shortcode(value.found),
    )


def _shown(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()
