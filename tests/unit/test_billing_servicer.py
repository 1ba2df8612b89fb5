"""hydrasms.billing.v1.BillingService: what its servicer asks of the service, and what it answers."""

from typing import Any

import pytest

from hydrasms.billing.v1 import billing_service_pb2 as billing_pb
from hydrasms_billing import model as billing
from hydrasms_billing.servicer import BillingServicer
from hydrasms_core.caller import Caller
from hydrasms_core.paging import Page
from tests.support.servicers import ask

BILLING = billing_pb.DESCRIPTOR.services_by_name["BillingService"]
ALICE = Caller(account_id="alice")
SERVICE = Caller(account_id=None)
AT_MS = 1_780_049_700_007

TRANSACTION = billing.Transaction(
    "t1", "alice", billing.TransactionKind.SPEND, -2, "account", AT_MS, message_id="m1", reason="why"
)


def ask_billing(method: str, request: Any, who: Caller = ALICE, **answers: Any) -> tuple[Any, Any]:
    """Return what the service was asked and what the caller was answered."""
    return ask(BILLING, BillingServicer, method, request, who, answers)


def test_a_balance_is_packed_with_its_account():
    asked, response = ask_billing("GetBalance", billing_pb.GetBalanceRequest(), balance=2**62)
    assert asked == ("balance", "alice")
    assert (response.account_id, response.balance) == ("alice", 2**62)


def test_transactions_are_packed_as_they_are():
    asked, response = ask_billing(
        "ListTransactions",
        billing_pb.ListTransactionsRequest(page_size=7, page_token="here"),
        transactions=Page([TRANSACTION], "there"),
    )
    assert asked == ("transactions", "alice", 7, "here")
    (packed,) = response.transactions
    assert (packed.id, packed.account_id, packed.kind, packed.amount) == (
        "t1",
        "alice",
        billing_pb.TRANSACTION_KIND_SPEND,
        -2,
    )
    assert (packed.message_id, packed.payment_id, packed.actor, packed.reason) == (
        "m1",
        "",
        "account",
        "why",
    )
    assert packed.created_at.ToMilliseconds() == AT_MS
    assert response.next_page_token == "there"


@pytest.mark.parametrize("key", [None, "", "k"])
def test_a_grant_is_unpacked_with_its_key_or_none(key):
    asked, response = ask_billing(
        "GrantCredits",
        billing_pb.GrantCreditsRequest(account_id="alice", amount=5, reason="A gift", idempotency_key=key),
        SERVICE,
        grant=billing.Granted(TRANSACTION, 12, replayed=True),
    )
    assert asked == ("grant", "alice", 5, "A gift", ("actor", "service"), ("idempotency_key", key))
    assert (response.transaction.id, response.balance, response.idempotent_replayed) == ("t1", 12, True)


def test_a_verification_is_packed_with_every_discrepancy():
    found = [billing.Discrepancy(kind, "alice", "t1", "what") for kind in billing.DiscrepancyKind]
    asked, response = ask_billing(
        "VerifyLedger",
        billing_pb.VerifyLedgerRequest(),
        SERVICE,
        verify=billing.VerifyReport(found, accounts=1, transfers=2, messages=3),
    )
    assert asked == ("verify",)
    assert (response.ok, response.accounts, response.transfers, response.messages) == (False, 1, 2, 3)
    names = [billing_pb.DiscrepancyKind.Name(each.kind) for each in response.discrepancies]
    assert names == [f"DISCREPANCY_KIND_{kind.name}" for kind in billing.DiscrepancyKind]
    assert {(each.account_id, each.subject, each.detail) for each in response.discrepancies} == {
        ("alice", "t1", "what")
    }
