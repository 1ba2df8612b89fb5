"""Transactions: the movements of an account's credits."""

from typing import Any

import typer

from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms_app.cli.connection import connect
from hydrasms_app.cli.options import AccountId, AsJson, PageSize, PageToken
from hydrasms_app.cli.output import print_json, print_next_page, print_table
from hydrasms_app.cli.values import time_of, word

app = typer.Typer(help="Transactions: every movement of credits.")


# Without a callback typer makes a single command the whole group.
@app.callback()
def _group() -> None: ...


@app.command("list")
def list_transactions(
    account_id: AccountId,
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List an account's transactions, newest first."""
    request = pb.ListTransactionsRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.billing.ListTransactions, request)
    transactions = [transaction_fields(transaction) for transaction in reply.transactions]
    if as_json:
        print_json({"transactions": transactions, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "created", "kind", "amount", "message or payment", "actor", "reason")
    rows = (
        (
            transaction["id"],
            transaction["created_at"],
            transaction["kind"],
            f"{transaction['amount']:+,}",
            transaction["message_id"] or transaction["payment_id"],
            transaction["actor"],
            transaction["reason"],
        )
        for transaction in transactions
    )
    print_table(columns, rows, empty="No transactions.")
    print_next_page(reply.next_page_token)


def transaction_fields(transaction: pb.Transaction) -> dict[str, Any]:
    """Return a transaction as JSON shows it; the amount is signed, a spend below 0."""
    return {
        "id": transaction.id,
        "kind": word(pb.TransactionKind.Name, transaction.kind),
        "amount": transaction.amount,
        "message_id": transaction.message_id,
        "payment_id": transaction.payment_id,
        "actor": transaction.actor,
        "reason": transaction.reason,
        "created_at": time_of(transaction, "created_at"),
    }
