"""What becomes of an automatic reply on its way out: pure rules."""

import enum
from typing import NamedTuple

from hydrasms_core.carriers.base import Answer, AnswerLost, Refused, Submitted, Throttled
from hydrasms_core.messaging.delivery import RESEND_AFTER_MS, back_off_ms


class ReplyStatus(enum.StrEnum):
    """Where a reply is on its way."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"


class Standing(NamedTuple):
    """Where a reply stands when it falls due: `held` tells that a worker took it and died."""

    attempts: int
    duplicate_risk: bool
    held: bool


class Change(NamedTuple):
    """What becomes of a reply, and when it is due where it is queued again."""

    status: ReplyStatus
    due_at_ms: int
    duplicate_risk: bool


def may_go(at: Standing, *, expired: bool) -> bool:
    """Tell whether a reply that is due is handed on.

    One whose worker died may be on the phone. It goes once more, marked, and never again after that.
    """
    return not expired and not (at.held and at.duplicate_risk)


def when_answered(at: Standing, answer: Answer, *, now_ms: int) -> Change:
    """Decide about a reply by what its carrier answered; `at` counts that attempt."""
    match answer:
        case Submitted():
            return Change(ReplyStatus.SENT, now_ms, at.duplicate_risk)
        case Throttled():
            return Change(ReplyStatus.QUEUED, now_ms + back_off_ms(answer, at.attempts), at.duplicate_risk)
        case AnswerLost() if not at.duplicate_risk:
            return Change(ReplyStatus.QUEUED, now_ms + RESEND_AFTER_MS, True)
        case AnswerLost() | Refused():
            return Change(ReplyStatus.FAILED, now_ms, at.duplicate_risk)
