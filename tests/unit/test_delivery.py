"""The rules of delivery never leave the state machine, and money moves once."""

import types
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_core.carriers.base import (
    Answer,
    AnswerLost,
    ReceiptStatus,
    Refused,
    Submitted,
    Throttled,
)
from hydrasms_core.messaging import delivery
from hydrasms_core.messaging.delivery import (
    MAX_BACK_OFF_MS,
    MAX_INTERRUPTED,
    NO_ANSWER,
    RESEND_AFTER_MS,
    Change,
    Move,
    Report,
    Standing,
    Step,
    follow,
    storable,
    when_answered,
    when_due,
    when_reported,
    when_unreported,
)
from hydrasms_core.messaging.model import TRANSITIONS, Status, is_refunded, may_become

NOW_MS = 1_780_000_000_000
LEASE_MS = 30_000
TIMEOUT_MS = 72 * 3_600_000
LATER_MS = NOW_MS + 3_600_000

ANSWERS = st.one_of(
    st.just(Submitted("reference")),
    st.builds(Refused, st.just("no")),
    st.builds(Throttled, st.just("busy"), st.integers(0, 10**7)),
    st.builds(AnswerLost, st.just("gone")),
)


def standing(status=Status.QUEUED, **changes):
    fields = {
        "status": status,
        "attempts": 1,
        "duplicate_risk": False,
        "expires_at_ms": LATER_MS,
        "held": False,
        "failure": "",
    }
    return Standing(**(fields | changes))


STANDINGS = st.builds(
    standing,
    st.sampled_from(Status),
    attempts=st.integers(0, 2_000),
    duplicate_risk=st.booleans(),
    expires_at_ms=st.integers(NOW_MS - 10**7, NOW_MS + 10**7),
    held=st.booleans(),
)


def due(at):
    return when_due(at, now_ms=NOW_MS, lease_ms=LEASE_MS)


def answered(at, answer):
    return when_answered(at, answer, now_ms=NOW_MS, receipt_timeout_ms=TIMEOUT_MS)


def assert_lawful(at, change):
    assert change.status is at.status or may_become(at.status, change.status)
    assert change.refund == is_refunded(at.status, change.status)


@given(STANDINGS)
def test_what_is_due_never_leaves_the_state_machine(at):
    assert_lawful(at, due(at))


@given(STANDINGS, ANSWERS)
def test_no_answer_leaves_the_state_machine(at, answer):
    at = at._replace(status=Status.SUBMITTING, held=True)
    assert_lawful(at, answered(at, answer))


@given(st.sampled_from(Status), st.sampled_from(ReceiptStatus))
def test_no_report_leaves_the_state_machine_or_gives_credits_back(current, report):
    following = when_reported(current, report)
    assert following is None or (may_become(current, following) and not is_refunded(current, following))


@pytest.mark.parametrize("status", Status)
def test_an_overdue_receipt_never_leaves_the_state_machine(status):
    following = when_unreported(status)
    assert following is status or may_become(status, following)


def test_the_law_would_catch_a_rule_that_leaves_the_state_machine():
    with pytest.raises(AssertionError):
        assert_lawful(standing(Status.DELIVERED), Change(Status.QUEUED, Step.SUBMIT, 0, False, "", False))
    with pytest.raises(AssertionError):
        assert_lawful(standing(Status.QUEUED), Change(Status.EXPIRED, None, 0, False, "", False))


def test_a_queued_message_is_handed_on_under_a_lease():
    assert due(standing()) == Change(Status.SUBMITTING, Step.SUBMIT, NOW_MS + LEASE_MS, False, "", False)


def test_a_queued_message_past_its_validity_expires_and_is_refunded():
    change = due(standing(expires_at_ms=NOW_MS, failure="busy"))
    assert (change.status, change.step, change.refund, change.failure) == (Status.EXPIRED, None, True, "busy")


def test_a_message_whose_worker_died_is_handed_on_again_and_marked():
    first = due(standing(Status.SUBMITTING, held=True, attempts=1))
    assert (first.status, first.duplicate_risk) == (Status.SUBMITTING, True)
    again = due(standing(Status.SUBMITTING, held=True, duplicate_risk=True, attempts=MAX_INTERRUPTED - 1))
    assert (again.status, again.duplicate_risk) == (Status.SUBMITTING, True)


def test_a_message_that_workers_keep_dying_over_is_given_up_at_last():
    last = due(standing(Status.SUBMITTING, held=True, duplicate_risk=True, attempts=MAX_INTERRUPTED))
    assert (last.status, last.step, last.refund, last.failure) == (Status.UNKNOWN, None, False, NO_ANSWER)


def test_an_extra_attempt_that_was_throttled_may_be_made_again():
    at = standing(Status.SUBMITTING, duplicate_risk=True)
    throttled = answered(at._replace(held=True), Throttled("busy"))
    assert (throttled.status, throttled.step) == (Status.SUBMITTING, Step.SUBMIT)
    assert due(at).status is Status.SUBMITTING


def test_a_message_that_may_be_on_a_phone_is_not_refunded_when_it_grows_old():
    change = due(standing(Status.SUBMITTING, expires_at_ms=NOW_MS))
    assert (change.status, change.refund) == (Status.UNKNOWN, False)


@pytest.mark.parametrize("status", set(Status) - {Status.QUEUED, Status.SUBMITTING})
def test_what_is_not_on_its_way_is_never_handed_on(status):
    change = due(standing(status))
    assert (change.status, change.step, change.refund) == (status, None, False)


def test_a_message_that_the_carrier_took_waits_for_its_receipt():
    change = answered(standing(Status.SUBMITTING, failure="busy"), Submitted("reference"))
    assert change == Change(Status.SUBMITTED, Step.RECEIPT, NOW_MS + TIMEOUT_MS, False, "", False)


@pytest.mark.parametrize("risk", [False, True])
def test_a_refusal_ends_a_message_and_gives_its_credits_back(risk):
    change = answered(standing(Status.SUBMITTING, duplicate_risk=risk), Refused("no such phone"))
    assert (change.status, change.step, change.refund) == (Status.REJECTED, None, True)
    assert change.failure == "no such phone"


def test_a_throttled_message_is_queued_again_for_later():
    change = answered(standing(Status.SUBMITTING), Throttled("busy", 2_000))
    assert change == Change(Status.QUEUED, Step.SUBMIT, NOW_MS + 2_000, False, "busy", False)


def test_pauses_double_up_to_a_bound_but_are_never_shorter_than_asked_for():
    def pause(attempts, asked_ms=1_000):
        at = standing(Status.SUBMITTING, attempts=attempts, expires_at_ms=NOW_MS + 10**9)
        return answered(at, Throttled("busy", asked_ms)).due_at_ms - NOW_MS

    assert [pause(attempts) for attempts in (1, 2, 3, 4)] == [1_000, 2_000, 4_000, 8_000]
    assert pause(1_000) == MAX_BACK_OFF_MS
    assert pause(5, asked_ms=MAX_BACK_OFF_MS * 2) == MAX_BACK_OFF_MS * 2


@given(st.integers(1, 10**6), st.integers(0, 10**6), ANSWERS)
def test_no_pause_outlasts_a_messages_validity(attempts, left_ms, answer):
    at = standing(Status.SUBMITTING, attempts=attempts, expires_at_ms=NOW_MS + left_ms)
    change = answered(at, answer)
    assert change.step is not Step.SUBMIT or change.due_at_ms <= at.expires_at_ms


def test_a_lost_answer_is_followed_by_one_extra_attempt_then_nobody_knows():
    first = answered(standing(Status.SUBMITTING), AnswerLost("gone"))
    assert first == Change(Status.SUBMITTING, Step.SUBMIT, NOW_MS + RESEND_AFTER_MS, False, "gone", False)
    second = answered(standing(Status.SUBMITTING, duplicate_risk=True), AnswerLost("gone"))
    assert second == Change(Status.UNKNOWN, None, 0, True, "gone", False)


def test_late_repeated_and_reversed_reports_change_nothing():
    message = ("account", "message")
    kinds = [
        ReceiptStatus.DELIVERED,
        ReceiptStatus.DELIVERED,
        ReceiptStatus.UNDELIVERED,
        ReceiptStatus.EXPIRED,
    ]
    applied, moves = follow([Report(message, Status.SUBMITTED, kind, "") for kind in kinds])
    assert applied == [True, False, False, False]
    assert moves == [Move(message, Status.DELIVERED, "")]


def test_reports_on_unknown_references_move_nothing_and_disturb_nobody():
    nobody, somebody = ("", ""), ("account", "message")
    applied, moves = follow(
        [
            Report(nobody, None, ReceiptStatus.DELIVERED, ""),
            Report(somebody, Status.UNKNOWN, ReceiptStatus.UNDELIVERED, "off"),
            Report(nobody, None, ReceiptStatus.DELIVERED, ""),
        ]
    )
    assert applied == [False, True, False]
    assert moves == [Move(somebody, Status.UNDELIVERED, "off")]


def test_what_a_carrier_says_is_cut_and_cleaned_before_it_is_stored():
    assert storable("x" * 500) == "x" * 200
    assert storable("a\0b") == "ab"
    assert storable("half \ud800 pair") == "half ? pair"
    assert storable("漢字") == "漢字"


class Life(NamedTuple):
    """A message's life so far: where it stands, and what is still to be done about it."""

    at: Standing
    step: Step | None
    refunds: int
    uncertain: int
    path: tuple[Status, ...]


EVENTS = st.one_of(
    ANSWERS,
    st.sampled_from(ReceiptStatus),
    st.sampled_from(["due", "expired", "died", "cancelled", "overdue"]),
)


def live(rules, events):
    """Take a message through events as the dispatcher would, holding its life against the promises."""
    life = Life(standing(attempts=0), Step.SUBMIT, 0, 0, (Status.QUEUED,))
    for event in events:
        life = happen(rules, life, event)
        assert all(
            earlier is later or later in TRANSITIONS[earlier]
            for earlier, later in zip(life.path, life.path[1:], strict=False)
        ), life.path
        assert life.refunds <= 1
        assert life.uncertain <= MAX_INTERRUPTED
        assert life.at.duplicate_risk or life.uncertain < 2
        assert not (life.refunds and life.uncertain and life.at.status is not Status.REJECTED)
    return life


def happen(rules, life, event):
    at = life.at
    if isinstance(event, ReceiptStatus):
        following = rules.when_reported(at.status, event)
        return life if following is None else finished(life, following)
    if event == "cancelled":
        if not may_become(at.status, Status.CANCELLED):
            return life
        return finished(life, Status.CANCELLED)._replace(refunds=life.refunds + 1)
    if event == "overdue":
        return finished(life, rules.when_unreported(at.status)) if life.step is Step.RECEIPT else life
    if event in ("due", "expired", "died"):
        return fall_due(rules, life, event)
    if not at.held:
        return life
    change = rules.when_answered(at, event, now_ms=NOW_MS, receipt_timeout_ms=TIMEOUT_MS)
    return changed(life, change, held=False, lost=isinstance(event, AnswerLost))


def fall_due(rules, life, event):
    at = life.at
    # While a live worker holds a message it does not fall due for anybody.
    if life.step is not Step.SUBMIT or at.held != (event == "died"):
        return life
    expires_at_ms = NOW_MS if event == "expired" else LATER_MS
    change = rules.when_due(at._replace(expires_at_ms=expires_at_ms), now_ms=NOW_MS, lease_ms=LEASE_MS)
    handed_on = change.step is Step.SUBMIT
    life = changed(life, change, held=handed_on, lost=event == "died")
    return life._replace(at=life.at._replace(attempts=at.attempts + handed_on))


def changed(life, change, *, held, lost):
    at = standing(change.status, attempts=life.at.attempts, duplicate_risk=change.duplicate_risk, held=held)
    return Life(
        at,
        change.step,
        life.refunds + change.refund,
        life.uncertain + lost,
        (*life.path, change.status),
    )


def finished(life, status):
    return life._replace(at=life.at._replace(status=status, held=False), step=None, path=(*life.path, status))


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_a_message_is_refunded_once_at_most_and_never_goes_back(events):
    live(delivery, events)


def broken(**rules):
    return types.SimpleNamespace(**(vars(delivery) | rules))


def resend_for_ever(at, **times):
    return when_due(at._replace(held=False), **times)


def queue_again_after_a_lost_answer(at, answer: Answer, **times):
    change = when_answered(at, answer, **times)
    return change._replace(status=Status.QUEUED) if isinstance(answer, AnswerLost) else change


def believe_every_report(current, report):
    return Status(report.value)


@pytest.mark.parametrize(
    ("rules", "events"),
    [
        (broken(when_due=resend_for_ever), ["due", *["died"] * (MAX_INTERRUPTED + 1)]),
        (broken(when_answered=queue_again_after_a_lost_answer), ["due", AnswerLost("gone"), "expired"]),
        (broken(when_reported=believe_every_report), [ReceiptStatus.DELIVERED]),
    ],
    ids=["resends for ever", "refunds what may be on a phone", "believes every report"],
)
def test_the_promises_would_catch_rules_that_break_them(rules, events):
    live(delivery, events)
    with pytest.raises(AssertionError):
        live(rules, events)
