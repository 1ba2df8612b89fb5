"""Arguments and options that several commands share."""

import enum
from typing import Annotated

import typer

from hydrasms.accounts.v1 import account_service_pb2 as pb

MAX_CREDITS = 1_000_000_000_000

AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")]
MessageId = Annotated[str, typer.Argument(metavar="MESSAGE", help="The message's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PageSize = Annotated[int, typer.Option(min=1, max=1_000, help="At most so many entries.")]
PageToken = Annotated[str, typer.Option(help="The next_page_token of the page before.")]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(help="The same key acts once; a repeat answers the first time's result."),
]


class PlanName(enum.StrEnum):
    """A plan, as it is typed."""

    FREE = "free"
    PREMIUM = "premium"

    @property
    def number(self) -> pb.Plan.ValueType:
        """The plan in a request."""
        return pb.Plan.Value(f"PLAN_{self.name}")


class Switch(enum.StrEnum):
    """On or off, as it is typed."""

    ON = "on"
    OFF = "off"
