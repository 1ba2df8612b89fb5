"""`hydrasms credits` and `hydrasms transactions`."""

import pytest

from hydrasms.billing.v1 import billing_service_pb2 as pb
from tests.support.fake_core import failure_of, json_of, run, running_core, text_of

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def transaction(**fields):
    made = pb.Transaction(id="t1", account_id=ACCOUNT_ID, kind=pb.TRANSACTION_KIND_GRANT, amount=1_000)
    made.created_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.MergeFrom(pb.Transaction(actor="service", **fields))
    return made


GRANT = {
    "id": "t1",
    "kind": "grant",
    "amount": 1_000,
    "message_id": "",
    "payment_id": "",
    "actor": "service",
    "reason": "welcome",
    "created_at": "2026-05-29T10:15:00.007Z",
}


def granted(**fields):
    return pb.GrantCreditsResponse(transaction=transaction(reason="welcome"), balance=2_500, **fields)


def test_balance_is_an_integer(core):
    core.answer("GetBalance", pb.GetBalanceResponse(account_id=ACCOUNT_ID, balance=10**15))
    assert json_of(run("credits", "balance", ACCOUNT_ID, "--json")) == {"balance": 10**15}
    assert core.request == pb.GetBalanceRequest(account_id=ACCOUNT_ID)


@pytest.mark.parametrize(
    ("balance", "shown"), [(0, "0 credits"), (1, "1 credit"), (12_345, "12,345 credits")]
)
def test_balance_is_a_line_for_people(core, balance, shown):
    core.answer("GetBalance", pb.GetBalanceResponse(balance=balance))
    assert text_of(run("credits", "balance", ACCOUNT_ID)) == f"Balance: {shown}.\n"


def test_grant_answers_the_grant_and_the_balance(core):
    core.answer("GrantCredits", granted())
    shown = json_of(run("credits", "grant", ACCOUNT_ID, "1000", "--reason", "welcome", "--json"))
    assert shown == {"transaction": GRANT, "balance": 2_500, "idempotent_replayed": False}
    request = core.request
    assert (request.account_id, request.amount, request.reason) == (ACCOUNT_ID, 1_000, "welcome")


def test_every_grant_has_an_idempotency_key_of_its_own(core):
    core.answer("GrantCredits", granted())
    for _ in range(2):
        text_of(run("credits", "grant", ACCOUNT_ID, "1000", "--reason", "welcome"))
    keys = [call.request.idempotency_key for call in core.calls]
    assert all(keys)
    assert len(set(keys)) == 2


def test_grant_takes_the_operators_idempotency_key_and_says_when_it_answered_again(core):
    core.answer("GrantCredits", granted(idempotent_replayed=True))
    result = run("credits", "grant", ACCOUNT_ID, "1000", "--reason", "welcome", "--idempotency-key", "may")
    assert text_of(result) == "Granted before: 1,000 credits. Balance: 2,500 credits.\n"
    assert core.request.idempotency_key == "may"


def test_a_grant_that_only_the_channel_repeated_is_no_replay_to_its_operator(core):
    core.answer("GrantCredits", granted(idempotent_replayed=True))
    result = run("credits", "grant", ACCOUNT_ID, "1000", "--reason", "welcome")
    assert text_of(result) == "Granted: 1,000 credits. Balance: 2,500 credits.\n"


@pytest.mark.parametrize("amount", ["0", "1000000000001", "99999999999999999999", "ten", "0x10"])
def test_grant_refuses_an_impossible_amount_without_a_call(core, amount):
    assert "'N'" in failure_of(run("credits", "grant", ACCOUNT_ID, amount, "--reason", "welcome"), status=2)
    assert core.calls == []


def test_grant_demands_a_reason(core):
    assert "--reason" in failure_of(run("credits", "grant", ACCOUNT_ID, "5"), status=2)
    assert core.calls == []


def test_transactions_are_signed_and_named_in_lower_case(core):
    spend = transaction(kind=pb.TRANSACTION_KIND_SPEND, amount=-2, message_id="m1")
    top_up = transaction(kind=pb.TRANSACTION_KIND_TOP_UP, amount=500, payment_id="p1")
    core.answer(
        "ListTransactions",
        pb.ListTransactionsResponse(transactions=[spend, top_up], next_page_token="bmV4dA"),
    )
    shown = json_of(
        run("transactions", "list", ACCOUNT_ID, "--page-size", "2", "--page-token", "dGhpcw", "--json")
    )
    plain = {**GRANT, "reason": ""}
    assert shown == {
        "transactions": [
            {**plain, "kind": "spend", "amount": -2, "message_id": "m1"},
            {**plain, "kind": "top_up", "amount": 500, "payment_id": "p1"},
        ],
        "next_page_token": "bmV4dA",
    }
    assert core.request == pb.ListTransactionsRequest(account_id=ACCOUNT_ID, page_size=2, page_token="dGhpcw")


def test_transactions_are_a_table_for_people(core):
    spend = transaction(kind=pb.TRANSACTION_KIND_SPEND, amount=-2, message_id="m1")
    core.answer("ListTransactions", pb.ListTransactionsResponse(transactions=[transaction(), spend]))
    header, *rows = (line.split() for line in text_of(run("transactions", "list", ACCOUNT_ID)).splitlines())
    assert header[:4] == ["id", "created", "kind", "amount"]
    assert [row[2:5] for row in rows] == [["grant", "+1,000", "-"], ["spend", "-2", "m1"]]


def test_an_account_without_transactions_is_told_so(core):
    core.answer("ListTransactions", pb.ListTransactionsResponse())
    assert text_of(run("transactions", "list", ACCOUNT_ID)) == "No transactions.\n"
