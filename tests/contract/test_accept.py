"""What one transaction does with a batch of sends, over the real ledger and store."""

import random

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing import store as billing_store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.errors import IdempotencyMismatch, InsufficientCredits
from hydrasms_core.idempotency.tables import idempotency_keys
from hydrasms_core.messaging import store
from hydrasms_core.messaging.accept import Acceptance
from hydrasms_core.messaging.model import Accepted, Status
from hydrasms_core.messaging.tables import messages, outbox
from tests.support.consent import consent_book
from tests.support.sends import AT_MS, a_send, costing

ledger = LedgerCredits()


class Ledger:
    """A database with accounts, and what is left in it."""

    def __init__(self, database):
        self.database = database

    async def account(self, balance):
        account_id = new_id()
        await self.database.write(
            lambda tx: ledger.open(tx, account_id, initial_credits=balance, actor="service", at_ms=AT_MS)
        )
        return account_id

    async def commit(self, *sends):
        return await self.database.write(lambda tx: Acceptance(ledger, consent_book()).commit(tx, sends))

    async def balance(self, account_id):
        return (await self.column(balances.c.balance, balances.c.account_id == account_id))[0]

    async def column(self, column, *conditions):
        async def work(tx):
            found = await tx.execute(sa.select(column).where(*conditions).order_by(column))
            return [row[0] for row in found]

        return await self.database.read(work)

    async def assert_stored(self, *sends):
        """Exactly these are messages, in the outbox, and spent."""
        ids = sorted(send.message.id for send in sends)
        assert await self.column(messages.c.id) == ids
        assert await self.column(outbox.c.message_id) == ids
        assert await self.column(transfers.c.message_id, transfers.c.kind == "spend") == ids


@pytest.fixture
def book(database):
    return Ledger(database)


def kinds(outcomes):
    """Say of each outcome what it is: accepted, replayed, or the name of the refusal."""
    return [
        ("replayed" if outcome.replayed else "accepted")
        if isinstance(outcome, Accepted)
        else type(outcome).__name__
        for outcome in outcomes
    ]


async def test_every_send_of_a_batch_is_debited_stored_and_queued(book):
    alice, bob = await book.account(5), await book.account(1)
    sends = [costing(alice, 2), a_send(bob), costing(alice, 3)]
    outcomes = await book.commit(*sends)
    assert outcomes == [Accepted(send.message, replayed=False) for send in sends]
    await book.assert_stored(*sends)
    assert (await book.balance(alice), await book.balance(bob)) == (0, 0)


async def test_what_is_stored_is_what_was_answered(book):
    alice = await book.account(5)
    send = a_send(alice, "Grüße 😀\u202e \u2028", "k")
    await book.commit(send)
    found = await book.database.read(lambda tx: store.get_message(tx, alice, send.message.id))
    assert found == send.message


async def test_one_accounts_empty_balance_fails_no_neighbour(book):
    rich, poor = await book.account(10), await book.account(0)
    sends = [a_send(rich), a_send(poor), a_send(rich), a_send(poor, key="k"), a_send(rich)]
    outcomes = await book.commit(*sends)
    assert kinds(outcomes) == [
        "accepted",
        "InsufficientCredits",
        "accepted",
        "InsufficientCredits",
        "accepted",
    ]
    await book.assert_stored(sends[0], sends[2], sends[4])
    assert (await book.balance(rich), await book.balance(poor)) == (7, 0)


async def test_an_account_that_nobody_opened_has_nothing_to_spend(book):
    alice = await book.account(1)
    outcomes = await book.commit(a_send(new_id()), a_send(alice))
    assert kinds(outcomes) == ["InsufficientCredits", "accepted"]


async def test_credits_are_spent_in_order_of_arrival(book):
    alice = await book.account(4)
    sends = [costing(alice, 2), costing(alice, 3), costing(alice, 1), costing(alice, 2), costing(alice, 1)]
    outcomes = await book.commit(*sends)
    assert kinds(outcomes) == [
        "accepted",
        "InsufficientCredits",
        "accepted",
        "InsufficientCredits",
        "accepted",
    ]
    assert [(each.balance, each.cost) for each in outcomes if isinstance(each, InsufficientCredits)] == [
        (2, 3),
        (1, 2),
    ]
    await book.assert_stored(sends[0], sends[2], sends[4])


# ---- twins: sends of one batch with one key ------------------------------------------------------------------


async def test_twins_of_an_accepted_send_are_its_replays(book):
    alice = await book.account(10)
    sends = [a_send(alice, key="k") for _ in range(5)]
    outcomes = await book.commit(*sends)
    assert kinds(outcomes) == ["accepted"] + ["replayed"] * 4
    assert {each.message for each in outcomes} == {sends[0].message}
    await book.assert_stored(sends[0])
    assert await book.balance(alice) == 9


async def test_twins_that_ask_for_something_else_are_mismatches(book):
    alice = await book.account(10)
    sends = [a_send(alice, "Hello", "k"), a_send(alice, "Bye", "k"), a_send(alice, "Hello", "k")]
    assert kinds(await book.commit(*sends)) == ["accepted", "IdempotencyMismatch", "replayed"]
    await book.assert_stored(sends[0])


async def test_a_twin_takes_the_place_of_a_send_that_was_refused(book):
    alice = await book.account(2)
    sends = [
        costing(alice, 3, "k"),
        costing(alice, 2, "k"),
        costing(alice, 2, "k"),
        costing(alice, 3, "k"),
    ]
    assert kinds(await book.commit(*sends)) == [
        "InsufficientCredits",
        "accepted",
        "replayed",
        "IdempotencyMismatch",
    ]
    await book.assert_stored(sends[1])
    assert await book.balance(alice) == 0
    assert kinds(await book.commit(costing(alice, 2, "k"))) == ["replayed"]


async def test_a_twin_is_paid_from_what_the_others_of_its_batch_have_left(book):
    alice = await book.account(4)
    sends = [costing(alice, 5, "k"), costing(alice, 3), costing(alice, 2, "k"), costing(alice, 1, "other")]
    assert kinds(await book.commit(*sends)) == [
        "InsufficientCredits",
        "accepted",
        "InsufficientCredits",
        "accepted",
    ]
    assert await book.balance(alice) == 0


async def test_balances_are_looked_up_once_for_sends_with_and_without_keys(book, monkeypatch):
    looked_up = []

    async def counting(tx, account_ids):
        looked_up.append(set(account_ids))
        return await held(tx, account_ids)

    held = billing_store.hold_balances
    monkeypatch.setattr(billing_store, "hold_balances", counting)
    alice, bob = await book.account(2), await book.account(0)
    sends = [a_send(alice, key="k"), a_send(bob), a_send(alice)]
    assert kinds(await book.commit(*sends)) == ["accepted", "InsufficientCredits", "accepted"]
    assert looked_up == [{alice, bob}]


async def test_twins_of_which_none_can_be_paid_are_all_refused_and_leave_no_key(book):
    alice = await book.account(0)
    assert (
        kinds(await book.commit(*[a_send(alice, key="k") for _ in range(3)])) == ["InsufficientCredits"] * 3
    )
    assert await book.column(idempotency_keys.c.key) == []
    await book.database.write(lambda tx: _grant(tx, alice, 1))
    assert kinds(await book.commit(a_send(alice, key="k"))) == ["accepted"]


async def test_sends_without_a_key_are_nobodys_twins(book):
    alice = await book.account(3)
    sends = [a_send(alice) for _ in range(3)]
    assert kinds(await book.commit(*sends)) == ["accepted"] * 3
    await book.assert_stored(*sends)


async def test_one_key_of_two_accounts_makes_no_twins(book):
    alice, bob = await book.account(1), await book.account(1)
    sends = [a_send(alice, "Hello", "k"), a_send(bob, "Bye", "k")]
    assert kinds(await book.commit(*sends)) == ["accepted", "accepted"]
    assert kinds(await book.commit(a_send(bob, "Bye", "k"), a_send(alice, "Bye", "k"))) == [
        "replayed",
        "IdempotencyMismatch",
    ]


# ---- keys of earlier transactions ----------------------------------------------------------------------------


async def test_a_key_of_an_earlier_transaction_is_answered_with_its_message_as_it_is_now(book):
    alice = await book.account(1)
    first = a_send(alice, key="k")
    await book.commit(first)
    await book.database.write(lambda tx: store.cancel_queued(tx, alice, first.message.id, at_ms=AT_MS + 5))
    outcomes = await book.commit(a_send(alice, key="k"), a_send(alice, "Bye", "k"))
    changed = first.message._replace(status=Status.CANCELLED, updated_at_ms=AT_MS + 5)
    assert outcomes[0] == Accepted(changed, replayed=True)
    assert isinstance(outcomes[1], IdempotencyMismatch)
    assert await book.balance(alice) == 0


async def test_a_key_that_another_operation_used_is_new_to_a_send(book):
    alice = await book.account(1)
    await book.database.write(
        lambda tx: tx.execute(
            sa.insert(idempotency_keys).values(
                account_id=alice,
                operation="credits.grant",
                key="k",
                fingerprint="another",
                subject_id=new_id(),
                created_at_ms=AT_MS,
            )
        )
    )
    assert kinds(await book.commit(a_send(alice, key="k"))) == ["accepted"]


# ---- all or nothing ------------------------------------------------------------------------------------------


async def test_where_storing_fails_nothing_is_debited(book, monkeypatch):
    alice = await book.account(5)

    async def fail(tx, accepted, keyed, *, lane):
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "insert_queued", fail)
        with pytest.raises(RuntimeError):
            await book.commit(a_send(alice), a_send(alice, key="k"))
    await book.assert_stored()
    assert await book.balance(alice) == 5
    assert kinds(await book.commit(a_send(alice, key="k"))) == ["accepted"]


# ---- any batch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_a_batch_comes_out_as_its_sends_one_after_the_other_would(book, seed):
    """Two sets of equal accounts: one is served in batches, the other send by send."""
    source = random.Random(seed)
    owned = [source.randint(0, 12) for _ in range(3)]
    batched, single = [await book.account(n) for n in owned], [await book.account(n) for n in owned]
    # What a key stands for: a client that repeats a key repeats its request.
    costs: dict[tuple[int, str], int] = {}
    for _ in range(6):
        wanted = []
        for _ in range(source.randint(1, 15)):
            owner, key = source.randrange(3), source.choice([None, None, "a", "b", "c"])
            cost = source.randint(1, 3)
            if key is not None:
                cost = costs.setdefault((owner, key), cost)
            wanted.append((owner, cost, key))
        in_a_batch = await book.commit(*(costing(batched[o], cost, key) for o, cost, key in wanted))
        one_by_one = [(await book.commit(costing(single[o], cost, key)))[0] for o, cost, key in wanted]
        assert kinds(in_a_batch) == kinds(one_by_one)
    for together, alone in zip(batched, single, strict=True):
        assert await book.balance(together) == await book.balance(alone) >= 0


async def _grant(tx, account_id, amount):
    await tx.execute(
        sa.update(balances)
        .where(balances.c.account_id == account_id)
        .values(balance=balances.c.balance + amount)
    )
