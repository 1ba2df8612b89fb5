"""Messages: send, estimate, list, show, cancel, and those that came in."""

from typing import Annotated, Any

import typer

from hydrasms.messaging.v1 import message_pb2
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms_app.cli.connection import connect, new_idempotency_key
from hydrasms_app.cli.options import AccountId, AsJson, IdempotencyKey, MessageId, PageSize, PageToken
from hydrasms_app.cli.output import (
    plural,
    print_details,
    print_json,
    print_line,
    print_next_page,
    print_table,
)
from hydrasms_app.cli.values import time_of, word

app = typer.Typer(help="Messages: to phones and from phones.")


@app.command()
def send(
    account_id: AccountId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text, 1 to 799 characters.")],
    *,
    recipient: Annotated[str, typer.Option("--to", metavar="NUMBER", help="The phone: +447700900000.")],
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Send one message, paid by the account."""
    key = new_idempotency_key() if idempotency_key is None else idempotency_key
    request = pb.SendMessageRequest(
        account_id=account_id, recipient=recipient, content=text, idempotency_key=key
    )
    with connect() as core:
        reply = core.call(core.messaging.SendMessage, request, repeat_with=f"--idempotency-key {key}")
    # Under a key of our own only the channel has repeated the call: to the operator it is the first time.
    replayed = reply.idempotent_replayed and idempotency_key is not None
    if as_json:
        print_json({**_message(reply.message), "idempotent_replayed": replayed})
        return
    print_line(
        f"{'Accepted before' if replayed else 'Accepted'}: {reply.message.id}, "
        f"{plural(reply.message.credits, 'credit')}."
    )


@app.command()
def estimate(
    account_id: AccountId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text, 1 to 799 characters.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what a text would cost and how it would travel; nothing is sent."""
    with connect() as core:
        reply = core.call(
            core.messaging.EstimateMessage, pb.EstimateMessageRequest(account_id=account_id, content=text)
        )
    forced = reply.HasField("non_gsm_index")
    fields = {
        "credits": reply.credits,
        "encoding": word(message_pb2.Encoding.Name, reply.encoding),
        "segments": reply.segments,
        "units": reply.units,
        "non_gsm_character": reply.non_gsm_character if forced else None,
        "non_gsm_index": reply.non_gsm_index if forced else None,
    }
    if as_json:
        print_json(fields)
        return
    print_line(
        f"{plural(reply.credits, 'credit')}, {plural(reply.segments, 'segment')} in {fields['encoding']}, "
        f"{plural(reply.units, 'unit')}."
    )
    if forced:
        print_line(f"ucs2 because of {reply.non_gsm_character} at character {reply.non_gsm_index + 1}.")


@app.command("list")
def list_messages(
    account_id: AccountId,
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List an account's messages, newest first."""
    request = pb.ListMessagesRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.messaging.ListMessages, request)
    messages = [_message(message) for message in reply.messages]
    if as_json:
        print_json({"messages": messages, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "created", "status", "recipient", "credits", "content")
    fields = ("id", "created_at", "status", "recipient", "credits", "content")
    print_table(columns, ([message[field] for field in fields] for message in messages), empty="No messages.")
    print_next_page(reply.next_page_token)


@app.command()
def show(account_id: AccountId, message_id: MessageId, *, as_json: AsJson = False) -> None:
    """Show one message."""
    request = pb.GetMessageRequest(account_id=account_id, message_id=message_id)
    with connect() as core:
        reply = core.call(core.messaging.GetMessage, request)
    _print(reply.message, as_json=as_json)


@app.command()
def cancel(account_id: AccountId, message_id: MessageId, *, as_json: AsJson = False) -> None:
    """Take a queued message back and refund it."""
    request = pb.CancelMessageRequest(account_id=account_id, message_id=message_id)
    with connect() as core:
        reply = core.call(core.messaging.CancelMessage, request)
    _print(reply.message, as_json=as_json)


@app.command()
def inbound(
    account_id: AccountId,
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List the messages that phones sent to an account, newest first."""
    request = pb.ListInboundMessagesRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.messaging.ListInboundMessages, request)
    messages = [_inbound(message) for message in reply.messages]
    if as_json:
        print_json({"messages": messages, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "created", "sender", "shortcode", "webhook", "content")
    fields = ("id", "created_at", "sender", "shortcode", "webhook_status", "content")
    rows = ([message[field] for field in fields] for message in messages)
    print_table(columns, rows, empty="No inbound messages.")
    print_next_page(reply.next_page_token)


@app.command()
def unowned(
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List the texts from phones whose first word was nobody's shortcode, newest first."""
    request = pb.ListUnownedInboundMessagesRequest(page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.messaging.ListUnownedInboundMessages, request)
    messages = [_inbound(message) for message in reply.messages]
    if as_json:
        print_json({"messages": messages, "next_page_token": reply.next_page_token})
        return
    fields = ("id", "created_at", "sender", "shortcode", "content")
    rows = ([message[field] for field in fields] for message in messages)
    print_table(
        ("id", "created", "sender", "first word", "content"), rows, empty="No texts without an owner."
    )
    print_next_page(reply.next_page_token)


@app.command()
def assign(message_id: MessageId, account_id: AccountId, *, as_json: AsJson = False) -> None:
    """Give a text that is nobody's to an account, which then lists it; nothing is pushed."""
    request = pb.AssignInboundMessageRequest(inbound_message_id=message_id, account_id=account_id)
    with connect() as core:
        reply = core.call(core.messaging.AssignInboundMessage, request)
    if as_json:
        print_json(_inbound(reply.message))
        return
    print_line(f"{reply.message.id} is {reply.message.account_id}'s now.")


def _print(message: message_pb2.Message, *, as_json: bool) -> None:
    fields = _message(message)
    if as_json:
        print_json(fields)
    else:
        print_details({name.replace("_", " "): value for name, value in fields.items()})


def _message(message: message_pb2.Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "status": word(message_pb2.MessageStatus.Name, message.status),
        "sender": message.sender,
        "recipient": message.recipient.e164,
        "content": message.content,
        "credits": message.credits,
        "encoding": word(message_pb2.Encoding.Name, message.encoding),
        "segments": message.segments,
        "carrier": message.carrier,
        "attempts": message.attempts,
        "duplicate_risk": message.duplicate_risk,
        "failure": message.failure,
        "created_at": time_of(message, "created_at"),
        "updated_at": time_of(message, "updated_at"),
    }


def _inbound(message: message_pb2.InboundMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "sender": message.sender,
        "shortcode": message.shortcode,
        "content": message.content,
        "webhook_status": message.webhook_status if message.HasField("webhook_status") else None,
        "created_at": time_of(message, "created_at"),
    }
