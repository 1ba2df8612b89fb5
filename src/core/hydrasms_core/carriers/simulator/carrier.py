"""The simulated carrier: a phone network that lives in the database."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_base.log import get_logger
from hydrasms_core.carriers.base import (
    Answer,
    AnswerLost,
    InboundText,
    Receipt,
    Refused,
    Reports,
    Submission,
    Submitted,
    Throttled,
)
from hydrasms_core.carriers.simulator import store
from hydrasms_core.carriers.simulator.scripts import Script, script_for
from hydrasms_core.carriers.simulator.store import Owed, OwedAnswer, OwedReceipt, SimulatedText
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import CommitUnknown, Overloaded, StoreUnavailable

TEXTS_KEPT_MS = 24 * 3_600_000
"""How long a text stays on a simulated phone."""

RECEIPT_LEASE_MS = 10_000
"""How long nobody else brings the receipts and texts that one process has taken to bring."""

_MOST_AT_ONCE = 500
_MAX_REST_S = 60.0
_BACK_OFF_S = 1.0

_THROTTLED = Throttled("The simulated carrier is busy.")
_OUT_OF_SERVICE = Throttled("The simulated carrier is out of service.")
_LOST = AnswerLost("The simulated carrier did not answer.")

log = get_logger(__name__)


class _Taken(NamedTuple):
    """What submitting messages leaves in the network."""

    texts: list[SimulatedText]
    receipts: list[OwedReceipt]
    texts_back: list[OwedAnswer]


class SimulatedCarrier:
    """Takes messages as the scripts say, keeps them on simulated phones and reports on them.

    All its state is in the database, so that a restart forgets neither texts nor receipts.
    """

    name = "simulator"

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._owing = asyncio.Event()

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Answer]:
        """Take messages, in one transaction, and answer for each as its recipient's script says."""
        now_ms = self._clock.now_ms()
        answers: list[Answer] = []
        taken = _Taken([], [], [])
        for submission in submissions:
            script = script_for(submission.recipient)
            if script.refusal:
                answers.append(Refused(script.refusal))
            elif submission.attempt <= script.throttled_attempts:
                answers.append(_THROTTLED)
            else:
                reference = new_id()
                answers.append(Submitted(reference) if script.answered else _LOST)
                _keep(taken, submission, script, reference, now_ms)
        if any(taken):
            try:
                await self._database.write(lambda tx: store.add(tx, *taken))
            except CommitUnknown:
                # The phones may have them, as with a carrier whose answer was lost on its way.
                self._owing.set()
                return [_LOST if isinstance(a, Submitted) else a for a in answers]
            except StoreUnavailable:
                return [a if isinstance(a, Refused) else _OUT_OF_SERVICE for a in answers]
        if taken.receipts or taken.texts_back:
            self._owing.set()
        return answers

    async def run(self, reports: Reports) -> None:
        """Bring receipts and phones' texts as they fall due until cancelled; any number of processes may do so.

        One is forgotten only after it was taken, so that each is brought at least once.
        """
        due, acknowledged = Owed(), Owed()
        while True:
            try:
                if not (due.receipts or due.answers):
                    self._owing.clear()
                    due = await self._next_owed(acknowledged)
                    acknowledged = Owed()
                if due.receipts or due.answers:
                    await reports.receive([self._receipt(owed) for owed in due.receipts])
                    await self._bring_texts(reports, due.answers)
                    due, acknowledged = Owed(), due
                    continue
            except (StoreUnavailable, Overloaded):
                log.warning("simulated_reports_postponed")
                await asyncio.sleep(_BACK_OFF_S)
                continue
            await self._rest(due.next_ms)

    async def purge(self, now_ms: int) -> None:
        """Forget texts that are older than a day, in small transactions."""
        before_ms = now_ms - TEXTS_KEPT_MS
        while await self._database.write(lambda tx: store.purge(tx, before_ms=before_ms)):
            pass

    async def _next_owed(self, acknowledged: Owed) -> Owed:
        now_ms = self._clock.now_ms()
        return await self._database.write(
            lambda tx: store.next_owed(
                tx, acknowledged, now_ms=now_ms, until_ms=now_ms + RECEIPT_LEASE_MS, most=_MOST_AT_ONCE
            )
        )

    async def _bring_texts(self, reports: Reports, owed: Sequence[OwedAnswer]) -> None:
        """Bring texts, all at once; raises what the first of them that was not taken in met with."""
        now_ms = self._clock.now_ms()
        texts = [
            InboundText(self.name, answer.reference, answer.sender, answer.content, now_ms) for answer in owed
        ]
        taken = await asyncio.gather(*map(reports.receive_text, texts), return_exceptions=True)
        for each in taken:
            if isinstance(each, BaseException):
                raise each

    def _receipt(self, owed: OwedReceipt) -> Receipt:
        return Receipt(self.name, owed.reference, owed.status, self._clock.now_ms(), owed.failure)

    async def _rest(self, next_ms: int | None) -> None:
        rest_s = _MAX_REST_S
        if next_ms is not None:
            rest_s = min(rest_s, max(next_ms - self._clock.now_ms(), 0) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._owing.wait()


def _keep(taken: _Taken, submission: Submission, script: Script, reference: str, now_ms: int) -> None:
    """Add what one message leaves in the network, by its recipient's script."""
    if script.arrives:
        taken.texts.append(
            SimulatedText(
                reference,
                submission.message_id,
                submission.sender,
                submission.recipient,
                submission.content,
                now_ms,
            )
        )
    for ordinal, receipt in enumerate(script.receipts):
        taken.receipts.append(
            OwedReceipt(now_ms + receipt.after_ms, reference, ordinal, receipt.status, receipt.failure)
        )
    if text := script.text_back(submission.content):
        taken.texts_back.append(OwedAnswer(now_ms, reference, submission.recipient, text))
