"""Billing as its callers see it: the service, and the same over its stub."""

import asyncio
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms.billing.v1 import billing_service_pb2_grpc
from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.model import MAX_BALANCE, MAX_GRANT, TransactionKind
from hydrasms_billing.service import Billing
from hydrasms_billing.servicer import BillingServicer
from hydrasms_core.caller import Caller, calling
from hydrasms_core.errors import (
    IdempotencyMismatch,
    InvalidArgument,
    InvalidIdempotencyKey,
    InvalidPageToken,
    NotFound,
)
from hydrasms_core.rpc.interceptors import Errors, Pipeline
from hydrasms_core.rpc.loopback import Loopback
from tests.support.ledger import AT_MS, charge, credits_ledger, fill, open_account, send


@pytest.fixture
def billing(database, clock):
    return Billing(database, clock)


async def grant(billing, account_id, amount=10, reason="a gift", key=None):
    return await billing.grant(account_id, amount, reason, actor="service", idempotency_key=key)


async def all_rows(database):
    tables = ("balances", "transfers", "idempotency_keys")
    found = [await database.read(lambda tx, t=t: tx.execute(sa.text(f"SELECT * FROM {t}"))) for t in tables]
    return [sorted(result.fetchall()) for result in found]


# ---- balances and transactions ----


async def test_the_balance_is_what_the_account_holds(billing, database):
    account_id = await open_account(database, 10)
    await database.write(lambda tx: send(tx, charge(account_id, 3)))
    assert await billing.balance(account_id) == 7


@pytest.mark.parametrize("account_id", [new_id(), "", "somebody", "nul\0", "half \ud800", "x" * 10_000])
async def test_an_account_that_is_not_there_is_not_found(billing, account_id):
    with pytest.raises(NotFound) as caught:
        await billing.balance(account_id)
    assert caught.value.metadata == {"resource": "account"}
    with pytest.raises(NotFound):
        await billing.transactions(account_id, 0, "")
    with pytest.raises(NotFound):
        await grant(billing, account_id)


async def test_transactions_are_signed_and_newest_first(billing, database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 3)
    await database.write(lambda tx: credits_ledger.spend(tx, [paid], at_ms=AT_MS + 1))
    await database.write(lambda tx: credits_ledger.refund(tx, [paid], at_ms=AT_MS + 2))
    page = await billing.transactions(account_id, 0, "")
    assert [(row.kind, row.amount, row.message_id, row.actor, row.created_at_ms) for row in page.rows] == [
        (TransactionKind.REFUND, 3, paid.message_id, "account", AT_MS + 2),
        (TransactionKind.SPEND, -3, paid.message_id, "account", AT_MS + 1),
        (TransactionKind.GRANT, 10, "", "service", AT_MS),
    ]
    assert page.next_token == ""


async def test_pages_hold_every_transaction_once_and_none_of_another_account(billing, database):
    account_id, other = await fill(database, accounts=2, messages_each=20)
    seen, token = [], ""
    while True:
        page = await billing.transactions(account_id, 7, token)
        assert len(page.rows) <= 7
        seen += page.rows
        # What arrives meanwhile changes nothing on the pages that follow.
        await grant(billing, account_id)
        if not (token := page.next_token):
            break
    assert {row.account_id for row in seen} == {account_id}
    assert len({row.id for row in seen}) == len(seen) == 2 + 20 + 6
    assert [row.id for row in seen] == sorted((row.id for row in seen), reverse=True)
    first = await billing.transactions(account_id, 7, "")
    with pytest.raises(InvalidPageToken):
        await billing.transactions(other, 7, first.next_token)
    with pytest.raises(InvalidArgument):
        await billing.transactions(account_id, 1_001, "")


async def test_the_sum_of_all_transactions_is_the_balance(billing, database):
    for account_id in await fill(database, accounts=3, messages_each=20):
        page = await billing.transactions(account_id, 1_000, "")
        assert len(page.rows) > 20
        assert sum(row.amount for row in page.rows) == await billing.balance(account_id)


# ---- grants ----


async def test_a_grant_raises_the_balance_and_is_recorded(billing, database, clock):
    account_id = await open_account(database, 5)
    made = await grant(billing, account_id, 10, "for the trouble")
    assert (made.balance, made.replayed) == (15, False)
    assert await billing.balance(account_id) == 15
    newest = (await billing.transactions(account_id, 1, "")).rows[0]
    assert newest == made.transaction
    assert (newest.kind, newest.amount, newest.reason) == (TransactionKind.GRANT, 10, "for the trouble")
    assert (newest.actor, newest.created_at_ms) == ("service", clock.now_ms())


@pytest.mark.parametrize(
    ("amount", "reason", "field"),
    [
        (0, "why", "amount"),
        (-1, "why", "amount"),
        (MAX_GRANT + 1, "why", "amount"),
        (2**63 - 1, "why", "amount"),
        (1, "", "reason"),
        (1, "x" * 501, "reason"),
        (1, "nul\0", "reason"),
        (1, "half \ud800", "reason"),
    ],
)
async def test_a_grant_out_of_bounds_is_refused_and_changes_nothing(billing, database, amount, reason, field):
    account_id = await open_account(database, 5)
    before = await all_rows(database)
    with pytest.raises(InvalidArgument) as caught:
        await grant(billing, account_id, amount, reason, key="k")
    assert caught.value.field == field
    assert await all_rows(database) == before


@pytest.mark.parametrize(("amount", "reason"), [(1, "x"), (MAX_GRANT, "漢" * 500)])
async def test_a_grant_at_its_bounds_is_made(billing, database, amount, reason):
    account_id = await open_account(database, 0)
    assert (await grant(billing, account_id, amount, reason)).balance == amount


async def test_a_balance_stays_within_2_to_the_62nd(billing, database):
    account_id = await open_account(database, MAX_BALANCE - 10)
    before = await all_rows(database)
    with pytest.raises(InvalidArgument) as caught:
        await grant(billing, account_id, 11, key="k")
    assert caught.value.field == "amount"
    assert await all_rows(database) == before
    assert (await grant(billing, account_id, 10, key="k")).balance == MAX_BALANCE


async def test_one_key_grants_once_however_often_and_at_once_it_is_used(billing, database):
    account_id = await open_account(database, 5)
    made = await asyncio.gather(*(grant(billing, account_id, key="k") for _ in range(50)))
    assert sorted(each.replayed for each in made) == [False] + [True] * 49
    assert len({each.transaction for each in made}) == 1
    assert {each.balance for each in made} == {15}
    assert await billing.balance(account_id) == 15


async def test_a_replay_shows_the_balance_as_it_is_now(billing, database):
    account_id = await open_account(database, 5)
    made = await grant(billing, account_id, key="k")
    await database.write(lambda tx: send(tx, charge(account_id, 4)))
    again = await grant(billing, account_id, key="k")
    assert (again.transaction, again.balance, again.replayed) == (made.transaction, 11, True)


@pytest.mark.parametrize("other", [{"amount": 11}, {"reason": "another"}])
async def test_a_key_of_another_grant_is_refused(billing, database, other):
    account_id = await open_account(database, 5)
    await grant(billing, account_id, key="k")
    with pytest.raises(IdempotencyMismatch):
        await grant(billing, account_id, key="k", **other)
    assert await billing.balance(account_id) == 15


async def test_a_key_belongs_to_its_account(billing, database):
    for account_id in [await open_account(database, 5), await open_account(database, 5)]:
        assert not (await grant(billing, account_id, key="k")).replayed


async def test_without_a_key_every_grant_is_a_new_one(billing, database):
    account_id = await open_account(database, 5)
    await grant(billing, account_id)
    assert (await grant(billing, account_id)).balance == 25


async def test_a_malformed_key_is_refused(billing, database):
    account_id = await open_account(database, 5)
    with pytest.raises(InvalidIdempotencyKey):
        await grant(billing, account_id, key="")


# ---- over the stub ----


class AsCaller(Errors):
    """Every call is one caller's, and its errors are statuses."""

    def __init__(self, who):
        self._who = who

    async def around(self, method, request, context, proceed):
        with calling(self._who):
            return await super().around(method, request, context, proceed)


def stub(billing, account_id=None):
    pipeline = Pipeline([AsCaller(Caller(account_id))], guard=lambda _method, handler: handler)
    loopback: Any = Loopback([pipeline])
    billing_service_pb2_grpc.add_BillingServiceServicer_to_server(BillingServicer(billing), loopback)
    return billing_service_pb2_grpc.BillingServiceStub(loopback)


def reason_of(error):
    (info, *_) = rpc_status.from_call(error).details
    unpacked = error_details_pb2.ErrorInfo()
    assert info.Unpack(unpacked)
    return unpacked.reason


async def test_a_service_grants_and_an_account_sees_it(billing, database, clock):
    account_id = await open_account(database, 5)
    paid = charge(account_id, 2)
    await database.write(lambda tx: send(tx, paid))
    request = pb.GrantCreditsRequest(account_id=account_id, amount=10, reason="why", idempotency_key="k")
    made = await stub(billing).GrantCredits(request)
    assert (made.balance, made.idempotent_replayed) == (13, False)
    assert (await stub(billing).GrantCredits(request)).idempotent_replayed

    own = stub(billing, account_id)
    answer = await own.GetBalance(pb.GetBalanceRequest())
    assert (answer.account_id, answer.balance) == (account_id, 13)
    listed = await own.ListTransactions(pb.ListTransactionsRequest(page_size=2))
    granted, spent = listed.transactions
    assert granted == made.transaction
    assert (granted.kind, granted.amount, granted.actor) == (pb.TRANSACTION_KIND_GRANT, 10, "service")
    assert (granted.account_id, granted.reason) == (account_id, "why")
    assert granted.created_at.ToMilliseconds() == clock.now_ms()
    assert (spent.kind, spent.amount, spent.message_id) == (pb.TRANSACTION_KIND_SPEND, -2, paid.message_id)
    rest = await own.ListTransactions(pb.ListTransactionsRequest(page_token=listed.next_page_token))
    assert [row.kind for row in rest.transactions] == [pb.TRANSACTION_KIND_GRANT]
    assert rest.next_page_token == ""


async def test_a_verification_is_told_in_full(billing, database):
    account_id = await open_account(database, 5)
    calm = await stub(billing).VerifyLedger(pb.VerifyLedgerRequest())
    assert calm == pb.VerifyLedgerResponse(ok=True, accounts=1, transfers=1)
    await database.write(lambda tx: store.change_balances(tx, {account_id: 1}, at_ms=AT_MS))
    troubled = await stub(billing).VerifyLedger(pb.VerifyLedgerRequest())
    assert not troubled.ok
    (found,) = troubled.discrepancies
    assert (found.kind, found.account_id, found.subject) == (pb.DISCREPANCY_KIND_BALANCE, account_id, "")
    assert found.detail


async def test_errors_cross_the_wire_with_their_reasons(billing, database):
    account_id, other = await open_account(database, 5), await open_account(database, 5)
    own, service = stub(billing, account_id), stub(billing)
    for call, reason in (
        (own.GetBalance(pb.GetBalanceRequest(account_id=other)), "NOT_FOUND"),
        (own.ListTransactions(pb.ListTransactionsRequest(account_id=other)), "NOT_FOUND"),
        (own.ListTransactions(pb.ListTransactionsRequest(page_size=-1)), "INVALID_ARGUMENT"),
        (service.GetBalance(pb.GetBalanceRequest()), "INVALID_ARGUMENT"),
        (service.GetBalance(pb.GetBalanceRequest(account_id=new_id())), "NOT_FOUND"),
        (service.GrantCredits(pb.GrantCreditsRequest(amount=1, reason="why")), "INVALID_ARGUMENT"),
        (
            service.GrantCredits(pb.GrantCreditsRequest(account_id=account_id, reason="why")),
            "INVALID_ARGUMENT",
        ),
        (
            service.GrantCredits(
                pb.GrantCreditsRequest(account_id=account_id, amount=1, reason="why", idempotency_key="")
            ),
            "INVALID_IDEMPOTENCY_KEY",
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason_of(caught.value) == reason
