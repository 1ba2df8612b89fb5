"""What becomes of a push and of its endpoint: pure rules.

A push is tried at once and then after the pauses of `SCHEDULE_S`, in all for three days and a half, so that a
receiver that is gone for 72 hours misses nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hydrasms_core.webhooks.model import DeliveryStatus
from hydrasms_core.webhooks.ports import MAX_ANSWER_BYTES, Answered, Unanswered

SCHEDULE_S = (
    0,
    5,
    5 * 60,
    30 * 60,
    2 * 3_600,
    5 * 3_600,
    10 * 3_600,
    14 * 3_600,
    20 * 3_600,
    24 * 3_600,
)
"""The pause before each attempt, in seconds; one attempt each, and then it is dead."""

JITTER = 0.1
"""By how much of itself a pause is drawn out at most, so that what failed together does not come back together.
Never cut short: the sum is what survives an outage."""

MAX_RETRY_AFTER_S = 24 * 3_600
"""The longest pause that a receiver may ask for."""

MAX_PAUSE_MS = round(SCHEDULE_S[-1] * (1 + JITTER)) * 1_000
"""The longest pause between two attempts."""

DISABLED_AFTER_MS = 5 * 24 * 3_600_000
"""An endpoint where every attempt has failed for so long is disabled."""

GONE = "The receiver answered 410 Gone."
FAILED_TOO_LONG = "Every attempt has failed for five days."
INTERRUPTED = "The worker stopped during this attempt: nobody knows whether it arrived."

_MAX_FAILURE = 200
_HTTP_GONE = 410


class Standing(NamedTuple):
    """Where a push stands when its attempt is answered: attempts since it was queued, this one included."""

    step: int
    retries: bool


class Change(NamedTuple):
    """What an attempt makes of a push: where it is, and when it is tried again, 0 where it is not."""

    status: DeliveryStatus
    due_at_ms: int
    http_status: int | None
    failure: str
    answer: str
    gone: bool
    """True where the receiver wants no more pushes, ever."""

    @property
    def delivered(self) -> bool:
        """Whether the receiver has it."""
        return self.status is DeliveryStatus.DELIVERED


class Health(NamedTuple):
    """What a run of attempts says about their endpoint."""

    succeeded: bool
    """Whether any of them succeeded."""
    failing_since_ms: int | None
    """When the first one failed after the last success; None where the last one succeeded."""


def when_answered(at: Standing, answer: Answered | Unanswered, *, now_ms: int, jitter: float = 0.0) -> Change:
    """Decide about a push by how its attempt ended; `jitter`, 0 to 1, is where in its span the pause falls.

    Any 2xx is success and final. 410 ends it at once, as everything else does where retries are off or the schedule
    is over. A pause is never shorter than what the receiver asks for (Retry-After), up to a day.
    """
    if isinstance(answer, Unanswered):
        http_status, text, gone, asked_s = None, "", False, 0.0
        failure = storable(answer.failure.encode())[:_MAX_FAILURE] or "No answer came."
    else:
        http_status, text = answer.status, storable(answer.body)
        if 200 <= http_status <= 299:
            return Change(DeliveryStatus.DELIVERED, 0, http_status, "", text, gone=False)
        gone, failure = http_status == _HTTP_GONE, _refusal(http_status)
        asked_s = min(answer.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
    if gone or not at.retries or at.step >= len(SCHEDULE_S):
        return Change(DeliveryStatus.DEAD, 0, http_status, failure, text, gone)
    pause_s = max(SCHEDULE_S[at.step] * (1 + JITTER * jitter), asked_s)
    due_at_ms = now_ms + round(pause_s * 1_000)
    return Change(DeliveryStatus.PENDING, due_at_ms, http_status, failure, text, gone=False)


def health_after(ends: Sequence[tuple[bool, int]]) -> Health:
    """Say what attempts tell of their endpoint, from (whether it succeeded, when it ended) in order of their ends."""
    failing_since_ms: int | None = None
    for succeeded, at_ms in ends:
        if succeeded:
            failing_since_ms = None
        elif failing_since_ms is None:
            failing_since_ms = at_ms
    return Health(any(succeeded for succeeded, _ in ends), failing_since_ms)


def is_to_be_disabled(failing_since_ms: int, *, now_ms: int) -> bool:
    """Tell whether an endpoint has failed for too long."""
    return now_ms - failing_since_ms >= DISABLED_AFTER_MS


def storable(answer: bytes) -> str:
    """Return the first 2,000 bytes of an answer as a text that every database takes."""
    return answer[:MAX_ANSWER_BYTES].decode("utf-8", "replace").replace("\0", "")


def _refusal(http_status: int) -> str:
    redirects = ": redirects are not followed" if 300 <= http_status <= 399 else ""
    return GONE if http_status == _HTTP_GONE else f"The receiver answered {http_status}{redirects}."
