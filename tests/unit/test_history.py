"""The check of histories is a check: each way in which a history can be wrong is caught, and a right one passes."""

import dataclasses

import pytest

from tests.support.history import Attempt, Books, History, Outcome, Send, StoredMessage, StoredTransfer, check

RICH, POOR = "account-rich", "account-poor"


def right():
    """Return a history of every kind of attempt, and the books that go with it."""
    history = History()

    def tried(send, outcome, detail=""):
        history.end(history.begin(send), outcome, detail)
        return send

    plain = tried(Send("plain", RICH, None, 1), Outcome.ACKNOWLEDGED, "id-plain")
    keyed = tried(Send("keyed", RICH, "k1", 3), Outcome.UNKNOWN, "connection lost")
    tried(keyed, Outcome.ACKNOWLEDGED, "id-keyed")
    tried(keyed, Outcome.ACKNOWLEDGED, "id-keyed")
    tried(Send("mismatch", RICH, "k1", 1), Outcome.REFUSED, "IDEMPOTENCY_MISMATCH")
    arrived = tried(Send("arrived", RICH, None, 2), Outcome.UNKNOWN, "time out")
    tried(Send("never arrived", RICH, None, 2), Outcome.UNKNOWN, "503")
    tried(Send("too dear", POOR, "k1", 5), Outcome.REFUSED, "INSUFFICIENT_CREDITS")
    history.begin(Send("under way", POOR, None, 1))
    messages = [
        StoredMessage(f"id-{send.content}", send.account_id, send.content, send.credits, "delivered", False)
        for send in (plain, keyed, arrived)
    ]
    spends = [StoredTransfer(RICH, "spend", -message.credits, message.id) for message in messages]
    grants = [StoredTransfer(RICH, "grant", 100, ""), StoredTransfer(POOR, "grant", 4, "")]
    refund = StoredTransfer(RICH, "refund", 2, "id-arrived")
    return history.attempts(), Books(messages, [*grants, *spends, refund], {RICH: 96, POOR: 4})


def rules(attempts, books, **more):
    return {violation.rule for violation in check(attempts, books, **more)}


def test_a_right_history_passes():
    assert check(*right()) == []


def lost_acknowledgement(attempts, books):
    messages = [message for message in books.messages if message.content != "plain"]
    transfers = [transfer for transfer in books.transfers if transfer.message_id != "id-plain"]
    return attempts, Books(messages, transfers, books.balances | {RICH: 97})


def acknowledged_under_an_id_that_is_anothers(attempts, books):
    return [*attempts, Attempt(Send("late", RICH, None, 1), Outcome.ACKNOWLEDGED, "id-plain")], books


def phantom(attempts, books):
    return [a for a in attempts if a.send.content != "arrived"], books


def sent_for_another_account(attempts, books):
    moved = [
        a._replace(send=a.send._replace(account_id=POOR)) for a in attempts if a.send.content == "arrived"
    ]
    return [*(a for a in attempts if a.send.content != "arrived"), *moved], books


def stored_again(content):
    def tamper(attempts, books):
        (message,) = [message for message in books.messages if message.content == content]
        twin = message._replace(id="id-twin")
        paid = StoredTransfer(RICH, "spend", -twin.credits, twin.id)
        balances = books.balances | {RICH: books.balances[RICH] - twin.credits}
        return attempts, Books([*books.messages, twin], [*books.transfers, paid], balances)

    return tamper


def one_key_for_two_messages(attempts, books):
    messages = [*books.messages, StoredMessage("id-mismatch", RICH, "mismatch", 1, "queued", False)]
    transfers = [*books.transfers, StoredTransfer(RICH, "spend", -1, "id-mismatch")]
    unsure = [a._replace(outcome=Outcome.UNKNOWN) if a.send.content == "mismatch" else a for a in attempts]
    return unsure, Books(messages, transfers, books.balances | {RICH: 95})


def refused_but_stored(attempts, books):
    message = StoredMessage("id-too-dear", POOR, "too dear", 5, "queued", False)
    return attempts, dataclasses.replace(books, messages=[*books.messages, message])


def replayed_under_another_id(attempts, books):
    return [*attempts, Attempt(Send("keyed", RICH, "k1", 3), Outcome.ACKNOWLEDGED, "id-arrived")], books


def another_price(attempts, books):
    changed = [
        message._replace(credits=2) if message.content == "plain" else message for message in books.messages
    ]
    return attempts, dataclasses.replace(books, messages=changed)


def unpaid(attempts, books):
    transfers = [t for t in books.transfers if (t.kind, t.message_id) != ("spend", "id-keyed")]
    return attempts, Books(books.messages, transfers, books.balances | {RICH: 99})


def paid_twice(attempts, books):
    transfers = [*books.transfers, StoredTransfer(RICH, "spend", -1, "id-plain")]
    return attempts, Books(books.messages, transfers, books.balances | {RICH: 95})


def paid_for_nothing(attempts, books):
    transfers = [*books.transfers, StoredTransfer(RICH, "spend", -1, "id-of-nothing")]
    return attempts, Books(books.messages, transfers, books.balances | {RICH: 95})


def refunded_twice(attempts, books):
    transfers = [*books.transfers, StoredTransfer(RICH, "refund", 2, "id-arrived")]
    return attempts, Books(books.messages, transfers, books.balances | {RICH: 98})


def wrong_sum(attempts, books):
    return attempts, dataclasses.replace(books, balances=books.balances | {RICH: 95})


def balance_gone(attempts, books):
    return attempts, dataclasses.replace(books, balances={RICH: 96})


def overdrawn(attempts, books):
    transfers = [*books.transfers, StoredTransfer(POOR, "adjustment", -5, "")]
    return attempts, Books(books.messages, transfers, books.balances | {POOR: -1})


@pytest.mark.parametrize(
    ("tamper", "rule"),
    [
        (lost_acknowledgement, "lost"),
        (acknowledged_under_an_id_that_is_anothers, "one id for two sends"),
        (phantom, "phantom"),
        (sent_for_another_account, "phantom"),
        (stored_again("plain"), "doubled"),
        (stored_again("arrived"), "doubled"),
        (stored_again("keyed"), "doubled"),
        (one_key_for_two_messages, "doubled"),
        (refused_but_stored, "refused and stored"),
        (replayed_under_another_id, "replayed under another id"),
        (another_price, "altered"),
        (unpaid, "not paid once"),
        (paid_twice, "not paid once"),
        (paid_for_nothing, "paid without message"),
        (refunded_twice, "wrong refund"),
        (wrong_sum, "wrong sum"),
        (balance_gone, "wrong sum"),
        (overdrawn, "wrong sum"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_check_catches(tamper, rule):
    assert rule in rules(*tamper(*right()))


def test_a_backup_owes_only_what_was_acknowledged_before_it_began():
    attempts, books = right()
    before = [attempt for attempt in attempts if attempt.send.content != "plain"]
    assert check(*lost_acknowledgement(attempts, books), owed=before) == []
    assert rules(*lost_acknowledgement(attempts, books), owed=attempts) == {"lost"}
