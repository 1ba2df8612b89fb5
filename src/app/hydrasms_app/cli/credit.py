"""Credits: grant and balance."""

from typing import Annotated

import typer

from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms_app.cli.connection import connect, new_idempotency_key
from hydrasms_app.cli.options import MAX_CREDITS, AccountId, AsJson, IdempotencyKey
from hydrasms_app.cli.output import plural, print_json, print_line
from hydrasms_app.cli.transactions import transaction_fields

app = typer.Typer(help="Credits: what messages are paid with.")


@app.command()
def grant(
    account_id: AccountId,
    amount: Annotated[int, typer.Argument(metavar="N", min=1, max=MAX_CREDITS, help="Credits.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the ledger.")],
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Give an account credits."""
    key = new_idempotency_key() if idempotency_key is None else idempotency_key
    request = pb.GrantCreditsRequest(account_id=account_id, amount=amount, reason=reason, idempotency_key=key)
    with connect() as core:
        reply = core.call(core.billing.GrantCredits, request, repeat_with=f"--idempotency-key {key}")
    # Under a key of our own only the channel has repeated the call: to the operator it is the first time.
    replayed = reply.idempotent_replayed and idempotency_key is not None
    if as_json:
        print_json(
            {
                "transaction": transaction_fields(reply.transaction),
                "balance": reply.balance,
                "idempotent_replayed": replayed,
            }
        )
        return
    given = "Granted before" if replayed else "Granted"
    print_line(
        f"{given}: {plural(reply.transaction.amount, 'credit')}. Balance: {plural(reply.balance, 'credit')}."
    )


@app.command()
def balance(account_id: AccountId, *, as_json: AsJson = False) -> None:
    """Show an account's balance."""
    with connect() as core:
        reply = core.call(core.billing.GetBalance, pb.GetBalanceRequest(account_id=account_id))
    if as_json:
        print_json({"balance": reply.balance})
    else:
        print_line(f"Balance: {plural(reply.balance, 'credit')}.")
