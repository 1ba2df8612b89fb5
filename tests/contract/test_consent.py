"""STOP, START and HELP: heard before any routing, each change confirmed once, and no number stored in plain."""

import asyncio
import random

import pytest
import sqlalchemy as sa

from hydrasms_app.schema import metadata
from hydrasms_base.ids import new_id
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.consent.model import Wish
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.consent.tables import last_senders, opt_outs
from hydrasms_core.errors import RecipientOptedOut
from hydrasms_core.inbound.intake import Item
from hydrasms_core.inbound.model import Outcome, checked
from hydrasms_core.messaging.accept import Acceptance
from hydrasms_core.messaging.delivery import OPTED_OUT
from hydrasms_core.messaging.handover import Handover
from hydrasms_core.messaging.model import Accepted, Status
from hydrasms_core.settings import DeliverySettings
from tests.support.consent import SEALER, consent_book
from tests.support.databases import ON_POSTGRES
from tests.support.delivery import BOUND_S, ToldCarrier, message_of, queue, queued_message, rows_of
from tests.support.inbound import ALICE, BOB, SENDER, Reception, make_records, text_of
from tests.support.sends import AT_MS, NUMBER, a_send

PHONE = NUMBER.e164


@pytest.fixture
async def reception(database, clock):
    await make_records(database)
    return Reception(database, clock)


async def kinds(reception):
    return [reply["kind"] for reply in await reception.replies()]


# ---- what a phone asks for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["STOP", "stop", " Stop. ", "Unsubscribe", "STOP!!", "ＳＴＯＰ", "stop texting me"]
)
async def test_a_stop_is_for_the_account_whose_message_came_last(reception, text):
    await reception.sent(BOB)
    await reception.sent(ALICE)
    received = await reception.receive(text)
    assert (received.outcome, received.message.account_id) == (Outcome.OPTED_OUT, ALICE)
    assert await reception.refuses(ALICE)
    assert not await reception.refuses(BOB)
    assert not await reception.refuses(ALICE, "+447700900124")
    assert await kinds(reception) == ["stop"]
    assert await reception.recorded("happenings") == [(ALICE, "recipient_opted_out", received.message.id)]
    assert await reception.recorded("pushes") == []
    (row,) = await reception.messages()
    assert row["shortcode"] in ("stop", "unsubscribe")
    assert row["account_id"] == ALICE


async def test_keywords_are_heard_before_any_shortcode(reception):
    await reception.sent(ALICE)
    reception.shortcodes.held |= dict.fromkeys(["stop", "start", "help"], reception.shortcodes.held["lapsed"])
    for text in ("stop", "start", "help"):
        assert (await reception.receive(text)).message.account_id == ALICE
    assert [name for _, name, _ in await reception.recorded("happenings")] == [
        "recipient_opted_out",
        "recipient_opted_in",
    ]


async def test_each_change_is_confirmed_once(reception):
    await reception.sent(ALICE)
    for text in ("STOP", "STOP", "quit", "START", "START"):
        await reception.receive(text)
    assert await kinds(reception) == ["stop", "start"]
    assert len(await reception.recorded("happenings")) == 2
    assert not await reception.refuses(ALICE)
    assert len(await reception.messages()) == 5


async def test_a_start_without_a_stop_changes_nothing(reception):
    await reception.sent(ALICE)
    received = await reception.receive("START")
    assert (received.outcome, received.message.account_id) == (Outcome.OPTED_IN, ALICE)
    assert await kinds(reception) == []
    assert await reception.recorded("happenings") == []


@pytest.mark.parametrize("text", ["STOP", "START"])
async def test_of_nobody_nothing_can_be_asked(reception, text):
    received = await reception.receive(text)
    assert (received.outcome, received.message.account_id) == (Outcome.UNKNOWN_SHORTCODE, "")
    assert await rows_of(reception.database, opt_outs) == []
    assert await reception.replies() == []


async def test_help_is_answered_and_stored_for_whoever_it_may_be_about(reception):
    nobodys = await reception.receive("HELP")
    await reception.sent(ALICE)
    alices = await reception.receive("info")
    assert (nobodys.outcome, nobodys.message.account_id) == (Outcome.HELP, "")
    assert (alices.outcome, alices.message.account_id) == (Outcome.HELP, ALICE)
    assert await kinds(reception) == ["help", "help"]


async def test_what_begins_with_a_keyword_and_goes_on_is_heeded_and_not_answered(reception):
    # More likely another machine's notice than a person.
    await reception.sent(ALICE)
    await reception.receive("STOP received. You will get no more texts from this number.")
    await reception.receive("HELP: our opening hours are nine to five, from Monday to Friday.")
    assert await reception.refuses(ALICE)
    assert await reception.replies() == []


async def test_stops_and_starts_of_one_batch_take_effect_in_order(reception):
    await reception.sent(ALICE)
    source = random.Random(7)
    texts = [source.choice(["STOP", "START"]) for _ in range(60)]
    await asyncio.gather(*map(reception.receive, texts))
    assert await reception.refuses(ALICE) == (texts[-1] == "STOP")
    changes = [text for text, before in zip(texts, ["START", *texts[:-1]], strict=True) if text != before]
    happened = [name for _, name, _ in await reception.recorded("happenings")]
    assert happened == ["recipient_opted_out" if text == "STOP" else "recipient_opted_in" for text in changes]


async def test_one_stop_that_two_processes_hear_is_confirmed_once(reception, database, clock):
    await reception.sent(ALICE)
    other = Reception(database, clock)
    await asyncio.gather(*(each.receive("STOP") for each in (reception, other) for _ in range(10)))
    assert await kinds(reception) == ["stop"]
    assert len(await reception.recorded("happenings")) == 1


async def test_wishes_are_told_apart_by_account_and_phone(database):
    book = consent_book()
    wishes = [Wish(ALICE, PHONE, False), Wish(BOB, PHONE, True), Wish(ALICE, SENDER, False)]
    assert await database.write(lambda tx: book.follow(tx, wishes, at_ms=1)) == [True, False, True]
    assert await database.write(lambda tx: book.follow(tx, wishes, at_ms=2)) == [False, False, False]
    pairs = {(account, number) for account in (ALICE, BOB) for number in (PHONE, SENDER)}
    assert await database.read(lambda tx: book.refusing(tx, pairs)) == {(ALICE, PHONE), (ALICE, SENDER)}


# ---- whose message came last -------------------------------------------------------------------------------


async def test_the_last_of_a_batch_is_the_last_sender(database):
    book = consent_book()
    await database.write(lambda tx: book.sent(tx, [(ALICE, PHONE), (BOB, PHONE), (BOB, SENDER)], at_ms=1))
    await database.write(lambda tx: book.sent(tx, [(ALICE, SENDER)], at_ms=2))
    found = await database.read(lambda tx: book.last_senders(tx, [PHONE, SENDER, "+1"], hold=False))
    assert found == {PHONE: BOB, SENDER: ALICE}


async def test_no_number_stands_in_the_tables_and_without_the_key_none_is_found(database):
    book = consent_book()
    await database.write(lambda tx: book.sent(tx, [(ALICE, PHONE)], at_ms=1))
    await database.write(lambda tx: book.follow(tx, [Wish(ALICE, PHONE, False)], at_ms=1))
    for table in (last_senders, opt_outs):
        (row,) = await rows_of(database, table)
        assert row["number_hash"] == SEALER.hash_number(PHONE)
        assert PHONE[1:] not in str(row)
    stranger = ConsentBook(Sealer(Secret("another key")))
    assert await database.read(lambda tx: stranger.refusing(tx, [(ALICE, PHONE)])) == set()


# ---- sending -----------------------------------------------------------------------------------------------


@pytest.fixture
async def ledger(database):
    credits = LedgerCredits()
    for account in (ALICE, BOB):
        await database.write(
            lambda tx, account=account: credits.open(
                tx, account, initial_credits=5, actor="service", at_ms=AT_MS
            )
        )
    return credits


async def accept(database, ledger, *sends):
    acceptance = Acceptance(ledger, consent_book())
    return await database.write(lambda tx: acceptance.commit(tx, sends))


async def stop(database, account, number=PHONE):
    await database.write(lambda tx: consent_book().follow(tx, [Wish(account, number, False)], at_ms=AT_MS))


async def counts(database):
    """Return how many rows there are of what a send makes."""

    async def work(tx):
        return {
            name: (
                await tx.execute(sa.select(sa.func.count()).select_from(metadata.tables[name]))
            ).scalar_one()
            for name in ("messages", "outbox", "transfers", "idempotency_keys")
        }

    return await database.read(work)


async def test_a_send_to_a_phone_that_opted_out_is_refused_and_nothing_is_debited_or_stored(database, ledger):
    await stop(database, ALICE)
    before = await counts(database)
    outcomes = await accept(database, ledger, a_send(ALICE), a_send(ALICE, key="k"))
    assert [type(outcome) for outcome in outcomes] == [RecipientOptedOut] * 2
    assert await counts(database) == before
    # Without a trace: the same key works once the phone wants messages again.
    await database.write(lambda tx: consent_book().follow(tx, [Wish(ALICE, PHONE, True)], at_ms=AT_MS))
    (outcome,) = await accept(database, ledger, a_send(ALICE, key="k"))
    assert isinstance(outcome, Accepted)


async def test_one_phone_that_opted_out_fails_no_neighbour(database, ledger):
    await stop(database, ALICE)
    sends = [a_send(BOB), a_send(ALICE), a_send(BOB), a_send(ALICE, key="k"), a_send(BOB, key="k")]
    outcomes = await accept(database, ledger, *sends)
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True, False, True, False, True]
    assert [o.message.id for o in outcomes if isinstance(o, Accepted)] == [
        send.message.id for send in sends if send.message.account_id == BOB
    ]


async def test_a_send_that_was_accepted_before_the_stop_is_still_replayed(database, ledger):
    first, again = a_send(ALICE, key="k"), a_send(ALICE, key="k")
    await accept(database, ledger, first)
    await stop(database, ALICE)
    assert await accept(database, ledger, again) == [Accepted(first.message, replayed=True)]


async def test_an_opt_out_is_told_before_an_empty_balance(database, ledger):
    await stop(database, ALICE)
    (outcome,) = await accept(database, ledger, a_send(ALICE, "x" * 799 * 2))
    assert isinstance(outcome, RecipientOptedOut)


# ---- handing on --------------------------------------------------------------------------------------------


class Refunds:
    """Credits that only remember whom they were given back to."""

    def __init__(self):
        self.given = []

    async def refund(self, tx, charges, *, at_ms):
        self.given += [(charge.message_id, charge.credits) for charge in charges]


class Desk:
    """A worker's transactions."""

    def __init__(self, database, clock, consent=None):
        self.database = database
        self.refunds = Refunds()
        self.consent = consent or consent_book()
        self.handover = Handover(
            self.refunds,  # type: ignore[arg-type]
            self.consent,
            Carriers([ToldCarrier()]),
            clock,
            DeliverySettings(),
        )

    async def claim(self):
        return await self.database.write(lambda tx: self.handover.claim(tx, ()))


async def test_what_was_queued_before_the_stop_is_rejected_and_refunded_and_not_handed_on(database, clock):
    desk, now_ms = Desk(database, clock), clock.now_ms()
    mine = queued_message(now_ms, SENDER, account_id=ALICE, credits=3)
    others = queued_message(now_ms, SENDER, account_id=BOB)
    elsewhere = queued_message(now_ms, PHONE, account_id=ALICE)
    await queue(database, mine, others, elsewhere)
    await stop(database, ALICE, SENDER)
    claim = await desk.claim()
    handed = {submission.message_id for submission in claim.batches["told"].submissions}
    assert handed == {others.id, elsewhere.id}
    assert desk.refunds.given == [(mine.id, 3)]
    message = await message_of(database, mine.id, ALICE)
    assert (message.status, message.failure) == (Status.REJECTED, OPTED_OUT)
    # What was not handed on is not the phone's last message either.
    found = await database.read(lambda tx: desk.consent.last_senders(tx, [SENDER, PHONE], hold=False))
    assert found == {SENDER: BOB, PHONE: ALICE}


async def test_what_the_phone_may_have_already_is_not_sent_again_and_not_refunded(database, clock):
    desk = Desk(database, clock)
    message = queued_message(clock.now_ms(), SENDER, account_id=ALICE)
    await queue(database, message)
    await desk.claim()
    await stop(database, ALICE, SENDER)
    clock.advance(3600)
    claim = await desk.claim()
    assert not claim.batches
    assert (await message_of(database, message.id, ALICE)).status is Status.UNKNOWN
    assert desk.refunds.given == []


async def test_a_handover_that_asked_nobody_would_hand_it_on(database, clock):
    # The control.
    class Deaf(ConsentBook):
        async def refusing(self, tx, pairs):
            return set()

    desk = Desk(database, clock, Deaf(SEALER))
    await queue(database, queued_message(clock.now_ms(), SENDER, account_id=ALICE))
    await stop(database, ALICE, SENDER)
    assert (await desk.claim()).batches


# ---- a STOP and a handover at once -----------------------------------------------------------------------------


class Heedless(ConsentBook):
    """Holds nothing."""

    async def hold(self, tx, numbers):
        return None


async def race(reception, clock, consent=None):
    """Let a worker claim a message while a STOP for it is being committed; returns the claim."""
    database, desk = reception.database, Desk(reception.database, clock, consent)
    await reception.sent(ALICE)
    await queue(database, queued_message(clock.now_ms(), SENDER, account_id=ALICE))
    heard = asyncio.Event()
    claims = []
    arrival = checked(text_of("STOP"), new_id(), now_ms=clock.now_ms())

    async def claim():
        await heard.wait()
        claims.append(await desk.claim())

    async def stopping(tx):
        outcomes = await reception.intake.commit(tx, [Item(arrival)])
        heard.set()
        # Until the worker either has to wait for this, or has what it wanted without.
        while not claims:
            waiting = await tx.execute(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            if waiting.scalar_one():
                break
        return outcomes

    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(database.write(stopping), claim())
    assert await reception.refuses(ALICE)
    return claims[0]


@ON_POSTGRES
async def test_a_worker_that_looks_while_a_stop_is_being_committed_waits_for_it(reception, clock):
    assert not (await race(reception, clock)).batches


@ON_POSTGRES
async def test_a_worker_that_held_nothing_would_hand_a_message_on_after_the_stop(reception, clock):
    # The control.
    assert (await race(reception, clock, Heedless(SEALER))).batches


@ON_POSTGRES
async def test_workers_that_hand_on_to_the_same_phones_do_not_stand_in_each_others_way(database, clock):
    book, source = consent_book(), random.Random(3)
    numbers = [f"+4477009{number:05}" for number in range(200)]

    async def work(account):
        for _ in range(5):
            chosen = source.sample(numbers, 120)

            async def hand(tx, chosen=chosen):
                await book.hold(tx, chosen)
                await book.sent(tx, [(account, number) for number in chosen], at_ms=clock.now_ms())

            await database.write(hand)

    await asyncio.gather(*(work(account) for account in (ALICE, BOB) for _ in range(3)))
    found = await database.read(lambda tx: book.last_senders(tx, numbers, hold=False))
    assert set(found.values()) <= {ALICE, BOB}
    assert len(found) > 150
