"""The simulated phone network that is built in."""

from typing import Annotated

import typer

from hydrasms.carriers.v1 import simulator_service_pb2 as pb
from hydrasms.messaging.v1 import messaging_service_pb2 as messaging_pb
from hydrasms_app.cli.connection import connect, new_idempotency_key
from hydrasms_app.cli.options import AsJson, PageSize, PageToken
from hydrasms_app.cli.output import print_json, print_line, print_next_page, print_table
from hydrasms_app.cli.values import time_of, word

app = typer.Typer(help="The simulated phone network.")


# Without a callback typer makes a single command the whole group.
@app.callback()
def _group() -> None: ...


@app.command()
def inbox(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The phone: +447700900000.")],
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List what reached a simulated phone, newest first."""
    request = pb.ListInboxRequest(recipient=number, page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.simulator.ListInbox, request)
    texts = [
        {
            "id": text.id,
            "sender": text.sender,
            "recipient": text.recipient,
            "content": text.content,
            "received_at": time_of(text, "received_at"),
        }
        for text in reply.texts
    ]
    if as_json:
        print_json({"texts": texts, "next_page_token": reply.next_page_token})
        return
    columns = ("received", "sender", "content")
    fields = ("received_at", "sender", "content")
    rows = ([text[field] for field in fields] for text in texts)
    print_table(columns, rows, empty=f"No texts for {number} yet.")
    print_next_page(reply.next_page_token)


@app.command()
def inbound(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The text, with the shortcode as its first word.")
    ],
    *,
    sender: Annotated[str, typer.Option("--from", metavar="NUMBER", help="The phone: +447700900000.")],
    name: Annotated[
        str | None,
        typer.Option("--id", help="What the carrier calls the text; of two with the same name one counts."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a text from a simulated phone, and say who got it."""
    # Under a name the channel may repeat the call.
    carrier_message_id = new_idempotency_key() if name is None else name
    request = messaging_pb.ReceiveInboundRequest(
        carrier="simulator", carrier_message_id=carrier_message_id, sender=sender, text=text
    )
    with connect() as core:
        reply = core.call(core.messaging.ReceiveInbound, request, repeat_with=f"--id {carrier_message_id}")
    outcome = word(messaging_pb.InboundOutcome.Name, reply.outcome)
    message, duplicate = reply.message, reply.duplicate and name is not None
    if as_json:
        print_json(
            {
                "id": message.id,
                "account_id": message.account_id,
                "shortcode": message.shortcode,
                "content": message.content,
                "outcome": outcome,
                "duplicate": duplicate,
            }
        )
        return
    owner = f"Account {message.account_id}" if message.account_id else "Nobody"
    because = _BECAUSE.get(outcome, outcome).format(word=message.shortcode or "(none)")
    print_line(f"{owner} {'got' if duplicate else 'gets'} {message.id}: {because}.")


_BECAUSE = {
    "routed": "it holds the shortcode {word}",
    "unknown_shortcode": "no account holds the shortcode {word}",
    "opted_out": "the phone wants no more of its messages",
    "opted_in": "the phone wants its messages again",
    "help": "the phone asks for help",
}
"""Why somebody gets a text, by its outcome."""
