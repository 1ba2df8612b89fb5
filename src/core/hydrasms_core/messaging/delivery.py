"""What becomes of a message on its way out: pure rules, none of which leaves the state machine of `model.py`."""

import enum
from collections.abc import Sequence
from typing import NamedTuple

from hydrasms_core.carriers.base import (
    Answer,
    AnswerLost,
    ReceiptStatus,
    Refused,
    Submitted,
    Throttled,
)
from hydrasms_core.messaging.model import Status, is_refunded, may_become

MAX_INTERRUPTED = 10
"""How many attempts a message gets at most where workers die over it."""

RESEND_AFTER_MS = 1_000
"""How long after a lost answer the one extra attempt is made."""

MAX_BACK_OFF_MS = 300_000
"""The longest pause between two attempts at a carrier that throttles, unless it asks for more itself."""

NO_ANSWER = "The carrier's answer was never learned."
NO_RECEIPT = "The carrier's receipt did not come in time."
OPTED_OUT = "The recipient has opted out."

_MAX_WORD = 200
_MAX_DOUBLINGS = 20

_REPORTED = {
    ReceiptStatus.DELIVERED: Status.DELIVERED,
    ReceiptStatus.UNDELIVERED: Status.UNDELIVERED,
    ReceiptStatus.EXPIRED: Status.EXPIRED,
}
_TAKES_REPORTS = frozenset({Status.SUBMITTED, Status.UNKNOWN})


class Step(enum.StrEnum):
    """What the outbox says is still to be done about a message."""

    SUBMIT = "submit"
    RECEIPT = "receipt"


# Tuples and no dataclasses: thousands of each are made a second, at a third of the cost.
class Standing(NamedTuple):
    """Where a message stands when something happens to it.

    `attempts` counts those made so far. `held` tells that a worker's claim is on it: where such a message is
    due, its worker has died, for a live one answers or renews its lease in time.
    """

    status: Status
    attempts: int
    duplicate_risk: bool
    expires_at_ms: int
    held: bool
    failure: str


class Change(NamedTuple):
    """What becomes of a message: its new status, what is still to be done (None: nothing) and when, its credits."""

    status: Status
    step: Step | None
    due_at_ms: int
    duplicate_risk: bool
    failure: str
    refund: bool


class Report(NamedTuple):
    """A carrier's report; `message` tells one message from another, `standing` is None where none is known."""

    message: tuple[str, str]
    standing: Status | None
    status: ReceiptStatus
    failure: str


class Move(NamedTuple):
    """Where reports have moved a message, and the carrier's word for why."""

    message: tuple[str, str]
    status: Status
    failure: str


def when_due(at: Standing, *, now_ms: int, lease_ms: int, opted_out: bool = False) -> Change:
    """Decide about a message whose step `submit` is due: hand it on, or give it up.

    Handing on is a change to SUBMITTING with a lease. A message that is SUBMITTING already may have reached the
    phone, since its last answer was lost, or died with its worker: it is handed on again, marked, and is never
    refunded. After a lost answer that is done once; after a worker's death again and again, for then most likely
    nothing had left, up to a number of attempts at which the message may be what workers die of. One that is
    neither queued nor being submitted has nothing to be done about it. Where the phone has opted out since,
    nothing is handed on any more.
    """
    if at.status is Status.QUEUED:
        if at.expires_at_ms <= now_ms:
            return _finish(at, Status.EXPIRED, at.failure)
        if opted_out:
            return _finish(at, Status.REJECTED, OPTED_OUT)
        return Change(Status.SUBMITTING, Step.SUBMIT, now_ms + lease_ms, at.duplicate_risk, at.failure, False)
    if at.status is Status.SUBMITTING:
        if at.expires_at_ms <= now_ms or (at.held and at.attempts >= MAX_INTERRUPTED):
            return _finish(at, Status.UNKNOWN, at.failure or NO_ANSWER)
        if opted_out:
            return _finish(at, Status.UNKNOWN, OPTED_OUT)
        return Change(Status.SUBMITTING, Step.SUBMIT, now_ms + lease_ms, True, at.failure, False)
    return _finish(at, at.status, at.failure)


def when_answered(at: Standing, answer: Answer, *, now_ms: int, receipt_timeout_ms: int) -> Change:
    """Decide about a message that is SUBMITTING by what its carrier answered; `at` counts that attempt.

    After one lost answer a message never goes back to QUEUED, where it could be cancelled or expire for a
    refund though a phone may have it: it stays SUBMITTING until somebody knows. A refusal is believed also
    then: what the carrier will never take, it had not taken before.
    """
    if isinstance(answer, Submitted):
        due_at_ms = now_ms + receipt_timeout_ms
        return Change(Status.SUBMITTED, Step.RECEIPT, due_at_ms, at.duplicate_risk, "", False)
    failure = storable(answer.failure)
    if isinstance(answer, Refused):
        return _finish(at, Status.REJECTED, failure)
    if isinstance(answer, Throttled):
        waiting = Status.SUBMITTING if at.duplicate_risk else Status.QUEUED
        return _later(at, waiting, now_ms + back_off_ms(answer, at.attempts), failure)
    assert isinstance(answer, AnswerLost)
    if at.duplicate_risk:
        return _finish(at, Status.UNKNOWN, failure)
    return _later(at, Status.SUBMITTING, now_ms + RESEND_AFTER_MS, failure)


def when_unreported(current: Status) -> Status:
    """Return what a message becomes whose receipt did not come in time; a late one still settles it."""
    return Status.UNKNOWN if current is Status.SUBMITTED else current


def when_reported(current: Status, report: ReceiptStatus) -> Status | None:
    """Return what a report makes of a message; None where it changes nothing, being late, repeated or reversed.

    Only what a carrier has taken is moved by its reports, and no report gives credits back.
    """
    following = _REPORTED[report]
    return following if current in _TAKES_REPORTS and may_become(current, following) else None


def follow(reports: Sequence[Report]) -> tuple[list[bool], list[Move]]:
    """Tell of each report, in order, whether it moves its message, and return the moves: one a message at most.

    The reports of one message all name the standing that it has before the first of them.
    """
    moves: dict[tuple[str, str], Move] = {}
    applied = []
    for report in reports:
        earlier = moves.get(report.message)
        current = report.standing if earlier is None else earlier.status
        following = None if current is None else when_reported(current, report.status)
        applied.append(following is not None)
        if following is not None:
            moves[report.message] = Move(report.message, following, report.failure)
    return applied, list(moves.values())


def storable(word: str) -> str:
    """Return a carrier's word as it may be stored: at most 200 characters that every database takes."""
    if not word:
        return word
    return word.replace("\0", "")[:_MAX_WORD].encode("utf-8", "replace").decode()


def back_off_ms(answer: Throttled, attempts: int) -> int:
    """Return a pause that doubles from what the carrier asks for; never less than that."""
    doublings = min(max(attempts - 1, 0), _MAX_DOUBLINGS)
    return max(answer.retry_after_ms, min(answer.retry_after_ms << doublings, MAX_BACK_OFF_MS))


def _finish(at: Standing, status: Status, failure: str) -> Change:
    return Change(status, None, 0, at.duplicate_risk, failure, is_refunded(at.status, status))


def _later(at: Standing, status: Status, due_at_ms: int, failure: str) -> Change:
    # Not after the end of its validity: whoever waits for a refund should not wait for a pause to end as well.
    due_at_ms = min(due_at_ms, at.expires_at_ms)
    return Change(status, Step.SUBMIT, due_at_ms, at.duplicate_risk, failure, False)
