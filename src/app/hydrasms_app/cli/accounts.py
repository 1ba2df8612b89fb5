"""Accounts: create, list, show, update."""

from typing import Annotated, Any

import typer

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms_app.cli.connection import connect, new_idempotency_key
from hydrasms_app.cli.options import MAX_CREDITS, AccountId, AsJson, PageSize, PageToken, PlanName, Switch
from hydrasms_app.cli.output import print_details, print_json, print_next_page, print_table
from hydrasms_app.cli.values import time_of, word
from hydrasms_app.problems import Problem

app = typer.Typer(help="Accounts: customers and their plans.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    *,
    initial_credits: Annotated[
        int, typer.Option("--credits", min=0, max=MAX_CREDITS, help="Credits to begin with.")
    ] = 0,
    plan: Annotated[PlanName, typer.Option(help="What it pays for.")] = PlanName.FREE,
    no_sending: Annotated[bool, typer.Option("--no-sending", help="It may not send yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create an account and its first API key, which is shown this once."""
    request = pb.CreateAccountRequest(
        name=name,
        plan=plan.number,
        sending_enabled=not no_sending,
        initial_credits=initial_credits,
        create_api_key=True,
        idempotency_key=new_idempotency_key(),
    )
    with connect() as core:
        reply = core.call(core.accounts.CreateAccount, request)
    if not reply.api_key_secret:
        raise Problem(
            f"the account {reply.account.id} was created, but its key was lost with the core's first answer: "
            f"make another with `hydrasms key create {reply.account.id}`"
        )
    if as_json:
        print_json({"account_id": reply.account.id, "api_key": reply.api_key_secret})
    else:
        print_details({"account": reply.account.id, "API key (shown this once)": reply.api_key_secret})


@app.command("list")
def list_accounts(*, page_size: PageSize = 100, page_token: PageToken = "", as_json: AsJson = False) -> None:
    """List all accounts, newest first."""
    request = pb.ListAccountsRequest(page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.accounts.ListAccounts, request)
    accounts = [_account(account) for account in reply.accounts]
    if as_json:
        print_json({"accounts": accounts, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "name", "plan", "sending", "suspended", "created")
    fields = ("id", "name", "plan", "sending_enabled", "suspended", "created_at")
    print_table(columns, ([account[field] for field in fields] for account in accounts), empty="No accounts.")
    print_next_page(reply.next_page_token)


@app.command()
def show(account_id: AccountId, *, as_json: AsJson = False) -> None:
    """Show one account."""
    with connect() as core:
        reply = core.call(core.accounts.GetAccount, pb.GetAccountRequest(account_id=account_id))
    _print(reply.account, as_json=as_json)


@app.command()
def update(
    context: typer.Context,
    account_id: AccountId,
    *,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    plan: Annotated[PlanName | None, typer.Option(help="A new plan.")] = None,
    sending: Annotated[Switch | None, typer.Option(help="Whether it may send.")] = None,
    suspended: Annotated[Switch | None, typer.Option(help="Whether it is suspended.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given and leave the rest; in force within one second."""
    request = pb.UpdateAccountRequest(account_id=account_id)
    if name is not None:
        request.name = name
    if plan is not None:
        request.plan = plan.number
    if sending is not None:
        request.sending_enabled = sending is Switch.ON
    if suspended is not None:
        request.suspended = suspended is Switch.ON
    if request == pb.UpdateAccountRequest(account_id=account_id):
        context.fail("Nothing to change: give --name, --plan, --sending or --suspended.")
    with connect() as core:
        reply = core.call(core.accounts.UpdateAccount, request)
    _print(reply.account, as_json=as_json)


def _print(account: pb.Account, *, as_json: bool) -> None:
    fields = _account(account)
    if as_json:
        print_json(fields)
    else:
        print_details({name.replace("_", " "): value for name, value in fields.items()})


def _account(account: pb.Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "plan": word(pb.Plan.Name, account.plan),
        "sending_enabled": account.sending_enabled,
        "suspended": account.suspended,
        "created_at": time_of(account, "created_at"),
        "updated_at": time_of(account, "updated_at"),
    }
