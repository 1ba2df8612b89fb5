"""The ledger of credits."""

from typing import Annotated

import typer

from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms_app.cli.connection import connect
from hydrasms_app.cli.options import AsJson
from hydrasms_app.cli.output import plural, print_json, print_line, print_table
from hydrasms_app.cli.values import word
from hydrasms_app.problems import Problem

app = typer.Typer(help="The ledger of credits.")

_VERIFY_S = 600.0
# The core answers the first so many differences.
_MOST_LISTED = 100


# Without a callback typer makes a single command the whole group.
@app.callback()
def _group() -> None: ...


@app.command()
def verify(
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Read the database itself, without a core.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute every balance and hold transfers and messages against each other; status 1 where they differ."""
    reply = _offline() if offline else _online()
    discrepancies = [
        {
            "kind": word(pb.DiscrepancyKind.Name, discrepancy.kind),
            "account_id": discrepancy.account_id,
            "subject": discrepancy.subject,
            "detail": discrepancy.detail,
        }
        for discrepancy in reply.discrepancies
    ]
    if as_json:
        print_json(
            {
                "ok": reply.ok,
                "accounts": reply.accounts,
                "transfers": reply.transfers,
                "messages": reply.messages,
                "discrepancies": discrepancies,
            }
        )
    else:
        print_line(
            f"Looked at {plural(reply.accounts, 'account')}, {plural(reply.transfers, 'transfer')} "
            f"and {plural(reply.messages, 'message')}."
        )
        rows = (discrepancy.values() for discrepancy in discrepancies)
        print_table(("kind", "account", "subject", "detail"), map(tuple, rows), empty="Nothing is wrong.")
    if not reply.ok:
        raise Problem(f"the ledger does not add up: {_count(len(discrepancies))}")


def _count(listed: int) -> str:
    at_least = "at least " if listed >= _MOST_LISTED else ""
    return at_least + plural(listed, "difference")


def _online() -> pb.VerifyLedgerResponse:
    with connect() as core:
        return core.call(core.billing.VerifyLedger, pb.VerifyLedgerRequest(), timeout_s=_VERIFY_S)


def _offline() -> pb.VerifyLedgerResponse:
    # These bring the whole core with them, which no other command waits for.
    from hydrasms_app import roles
    from hydrasms_app.settings import load_settings

    return roles.verify_offline(load_settings())
