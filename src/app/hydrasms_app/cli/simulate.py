"""The simulated phone network that is built in."""

from typing import Annotated

import typer

from hydrasms.carriers.v1 import simulator_service_pb2 as pb
from hydrasms_app.cli.connection import connect
from hydrasms_app.cli.options import AsJson, PageSize, PageToken
from hydrasms_app.cli.output import print_json, print_next_page, print_table
from hydrasms_app.cli.values import time_of

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
