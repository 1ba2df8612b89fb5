"""Webhooks: what was pushed and pushing it again; endpoints, their secrets, and tests of them."""

import enum
from typing import Annotated, Any

import typer

from hydrasms.webhooks.v1 import webhook_service_pb2 as pb
from hydrasms_app.cli.connection import connect
from hydrasms_app.cli.options import AccountId, AsJson, PageSize, PageToken
from hydrasms_app.cli.output import (
    plural,
    print_details,
    print_json,
    print_line,
    print_next_page,
    print_table,
)
from hydrasms_app.cli.values import seconds_of_span, time_of, word

app = typer.Typer(help="Webhooks: where texts and delivery statuses are pushed to.")
deliveries = typer.Typer(help="Deliveries: what was pushed to webhooks, and what came of it.")

_LONGEST_OVERLAP_S = 30 * 86_400


class StatusName(enum.StrEnum):
    """A delivery's status, as it is typed."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"

    @property
    def number(self) -> pb.DeliveryStatus.ValueType:
        """The status in a request."""
        return pb.DeliveryStatus.Value(f"DELIVERY_STATUS_{self.name}")


def _overlap_s(text: str) -> int:
    return seconds_of_span(text, longest_s=_LONGEST_OVERLAP_S, said="A time from 0s to 30d")


EndpointId = Annotated[
    str,
    typer.Argument(
        metavar="ENDPOINT",
        show_default=False,
        help="A shortcode's id; the account's own webhook unless given.",
    ),
]
ToEndpoint = Annotated[
    str, typer.Option("--endpoint", metavar="ENDPOINT", help="Only those to this endpoint.")
]


@deliveries.command("list")
def list_deliveries(
    account_id: AccountId,
    *,
    status: Annotated[StatusName | None, typer.Option(help="Only those of this status.")] = None,
    endpoint_id: ToEndpoint = "",
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List an account's deliveries, newest first, each with its last 20 attempts."""
    request = pb.ListDeliveriesRequest(
        account_id=account_id, page_size=page_size, page_token=page_token, endpoint_id=endpoint_id
    )
    if status is not None:
        request.status = status.number
    with connect() as core:
        reply = core.call(core.webhooks.ListDeliveries, request)
    found = [_delivery(each) for each in reply.deliveries]
    if as_json:
        print_json({"deliveries": found, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "created", "status", "type", "subject", "attempts", "last", "next", "failure")
    print_table(columns, (_row(each) for each in found), empty="No deliveries.")
    print_next_page(reply.next_page_token)


@deliveries.command()
def redeliver(
    delivery_id: Annotated[
        str, typer.Argument(metavar="DELIVERY", show_default=False, help="The delivery's id.")
    ] = "",
    *,
    all_dead: Annotated[
        bool, typer.Option("--all-dead", help="Instead of one, all of an account that were given up.")
    ] = False,
    account_id: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="The account, with --all-dead.")
    ] = "",
    endpoint_id: ToEndpoint = "",
    as_json: AsJson = False,
) -> None:
    """Push again at once, under the same webhook-id; what was answered 2xx is never repeated."""
    if all_dead == bool(delivery_id):
        raise typer.BadParameter("Give the id of one delivery, or --all-dead and --account.")
    if all_dead:
        if not account_id:
            raise typer.BadParameter("--all-dead takes --account.")
        _redeliver_dead(account_id, endpoint_id, as_json=as_json)
        return
    if endpoint_id:
        raise typer.BadParameter("--endpoint goes with --all-dead.")
    request = pb.RedeliverRequest(account_id=account_id, delivery_id=delivery_id)
    with connect() as core:
        reply = core.call(core.webhooks.Redeliver, request)
    _print_delivery(reply.delivery, as_json=as_json)


@app.command("test")
def send_test(account_id: AccountId, endpoint_id: EndpointId = "", *, as_json: AsJson = False) -> None:
    """Push an event that says that it is a test; `hydrasms deliveries list` shows what came of it."""
    request = pb.SendTestEventRequest(account_id=account_id, endpoint_id=endpoint_id or account_id)
    with connect() as core:
        reply = core.call(core.webhooks.SendTestEvent, request)
    _print_delivery(reply.delivery, as_json=as_json)


@app.command("rotate-secret")
def rotate_secret(
    account_id: AccountId,
    endpoint_id: EndpointId = "",
    *,
    overlap_s: Annotated[
        int | None,
        typer.Option(
            "--overlap",
            metavar="SPAN",
            parser=_overlap_s,
            help="How long the old secret is used beside the new one: 0s, 30m, 7d. 1d unless given.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new signing secret, which is shown this once."""
    request = pb.RotateSecretRequest(account_id=account_id, endpoint_id=endpoint_id or account_id)
    if overlap_s is not None:
        request.overlap.seconds = overlap_s
    with connect() as core:
        reply = core.call(core.webhooks.RotateSecret, request)
    _print_endpoint(reply.endpoint, reply.signing_secret, as_json=as_json)


@app.command()
def show(account_id: AccountId, endpoint_id: EndpointId = "", *, as_json: AsJson = False) -> None:
    """Show one webhook: never its secrets."""
    request = pb.GetEndpointRequest(account_id=account_id, endpoint_id=endpoint_id or account_id)
    with connect() as core:
        reply = core.call(core.webhooks.GetEndpoint, request)
    _print_endpoint(reply.endpoint, "", as_json=as_json)


@app.command("set-account")
def set_account(
    account_id: AccountId,
    url: Annotated[str, typer.Argument(metavar="URL", help='Where to push to; "" takes the webhook away.')],
    *,
    as_json: AsJson = False,
) -> None:
    """Set an account's own webhook, which hears of delivered, undelivered and refunded messages.

    Its signing secret is shown when it is made, this once.
    """
    with connect() as core:
        reply = core.call(
            core.webhooks.SetAccountWebhook, pb.SetAccountWebhookRequest(account_id=account_id, url=url)
        )
    if reply.HasField("endpoint"):
        _print_endpoint(reply.endpoint, reply.signing_secret, as_json=as_json)
    elif as_json:
        print_json({"endpoint_id": account_id, "removed": True})
    else:
        print_line("The account has no webhook of its own.")


def _redeliver_dead(account_id: str, endpoint_id: str, *, as_json: bool) -> None:
    request = pb.RedeliverDeadRequest(account_id=account_id, endpoint_id=endpoint_id)
    with connect() as core:
        reply = core.call(core.webhooks.RedeliverDead, request)
    if as_json:
        print_json({"redelivered": reply.redelivered, "more": reply.more})
        return
    number = reply.redelivered
    print_line(f"{plural(number, 'delivery') if number == 1 else f'{number:,} deliveries'} pushed again.")
    if reply.more:
        print_line("There are more: repeat the command.")


def _print_delivery(delivery: pb.Delivery, *, as_json: bool) -> None:
    fields = _delivery(delivery)
    if as_json:
        print_json(fields)
        return
    shown = fields | {"attempts": _attempts_made(fields)}
    print_details({name.replace("_", " "): value for name, value in shown.items()})


def _print_endpoint(endpoint: pb.Endpoint, signing_secret: str, *, as_json: bool) -> None:
    fields = {
        "endpoint_id": endpoint.id,
        "account_id": endpoint.account_id,
        "shortcode": endpoint.shortcode,
        "url": endpoint.url,
        "retries": endpoint.retries,
        "failing_since": time_of(endpoint, "failing_since"),
        "disabled_at": time_of(endpoint, "disabled_at"),
        "disabled_reason": endpoint.disabled_reason,
        "previous_secret_until": time_of(endpoint, "previous_secret_until"),
    }
    if signing_secret:
        fields["signing_secret"] = signing_secret
    if as_json:
        print_json(fields)
        return
    names = {"signing_secret": "signing secret (shown this once)"}
    print_details({names.get(name, name.replace("_", " ")): value for name, value in fields.items()})


def _delivery(delivery: pb.Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "account_id": delivery.account_id,
        "status": word(pb.DeliveryStatus.Name, delivery.status),
        "type": word(pb.DeliveryType.Name, delivery.type),
        "endpoint_id": delivery.endpoint_id,
        "subject_id": delivery.subject_id,
        "last_http_status": delivery.last_http_status if delivery.HasField("last_http_status") else None,
        "next_attempt_at": time_of(delivery, "next_attempt_at"),
        "created_at": time_of(delivery, "created_at"),
        "attempts": [_attempt(each) for each in delivery.attempts],
    }


def _attempt(attempt: pb.DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "at": time_of(attempt, "at"),
        "duration_ms": attempt.duration.ToMilliseconds(),
        "http_status": attempt.http_status if attempt.HasField("http_status") else None,
        "failure": attempt.failure,
        "answer": attempt.answer,
    }


def _attempts_made(fields: dict[str, Any]) -> int:
    """Return how many attempts there were: only the last ones come with a delivery, each with its number."""
    return fields["attempts"][-1]["number"] if fields["attempts"] else 0


def _row(fields: dict[str, Any]) -> list[object]:
    last = fields["attempts"][-1] if fields["attempts"] else None
    return [
        fields["id"],
        fields["created_at"],
        fields["status"],
        fields["type"],
        fields["subject_id"],
        _attempts_made(fields),
        fields["last_http_status"],
        fields["next_attempt_at"],
        "" if last is None else last["failure"],
    ]
