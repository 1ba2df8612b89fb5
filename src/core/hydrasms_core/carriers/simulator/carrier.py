"""The simulated carrier: a phone network that lives in the database."""

import asyncio
import contextlib
from collections.abc import Sequence

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_base.log import get_logger
from hydrasms_core.carriers.base import (
    Answer,
    AnswerLost,
    Receipt,
    Refused,
    Reports,
    Submission,
    Submitted,
    Throttled,
)
from hydrasms_core.carriers.simulator import store
from hydrasms_core.carriers.simulator.scripts import script_for
from hydrasms_core.carriers.simulator.store import OwedReceipt, SimulatedText
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import CommitUnknown, Overloaded, StoreUnavailable

TEXTS_KEPT_MS = 24 * 3_600_000
"""How long a text stays on a simulated phone."""

RECEIPT_LEASE_MS = 10_000
"""How long nobody else sends the receipts that one process has taken to send."""

_MAX_RECEIPTS = 500
_MAX_REST_S = 60.0
_BACK_OFF_S = 1.0

_THROTTLED = Throttled("The simulated carrier is busy.")
_OUT_OF_SERVICE = Throttled("The simulated carrier is out of service.")
_LOST = AnswerLost("The simulated carrier did not answer.")

log = get_logger(__name__)


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
        texts: list[SimulatedText] = []
        receipts: list[OwedReceipt] = []
        for submission in submissions:
            script = script_for(submission.recipient)
            if script.refusal:
                answers.append(Refused(script.refusal))
                continue
            if submission.attempt <= script.throttled_attempts:
                answers.append(_THROTTLED)
                continue
            reference = new_id()
            answers.append(Submitted(reference) if script.answered else _LOST)
            if script.arrives:
                texts.append(
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
                receipts.append(
                    OwedReceipt(
                        now_ms + receipt.after_ms, reference, ordinal, receipt.status, receipt.failure
                    )
                )
        if texts or receipts:
            try:
                await self._database.write(lambda tx: store.add(tx, texts, receipts))
            except CommitUnknown:
                # The phones may have them, as with a carrier whose answer was lost on its way.
                self._owing.set()
                return [_LOST if isinstance(a, Submitted) else a for a in answers]
            except StoreUnavailable:
                return [a if isinstance(a, Refused) else _OUT_OF_SERVICE for a in answers]
        if receipts:
            self._owing.set()
        return answers

    async def run(self, reports: Reports) -> None:
        """Send receipts as they fall due until cancelled; any number of processes may do so.

        One is forgotten only after it was taken, so that each is sent at least once.
        """
        due: list[OwedReceipt] = []
        acknowledged: list[OwedReceipt] = []
        next_ms: int | None = None
        while True:
            try:
                if not due:
                    self._owing.clear()
                    due, next_ms = await self._next_receipts(acknowledged)
                    acknowledged = []
                if due:
                    await reports.receive([self._receipt(owed) for owed in due])
                    due, acknowledged = [], due
                    continue
            except (StoreUnavailable, Overloaded):
                log.warning("simulated_receipts_postponed")
                await asyncio.sleep(_BACK_OFF_S)
                continue
            await self._rest(next_ms)

    async def purge(self, now_ms: int) -> None:
        """Forget texts that are older than a day, in small transactions."""
        before_ms = now_ms - TEXTS_KEPT_MS
        while await self._database.write(lambda tx: store.purge(tx, before_ms=before_ms)):
            pass

    async def _next_receipts(
        self, acknowledged: Sequence[OwedReceipt]
    ) -> tuple[list[OwedReceipt], int | None]:
        now_ms = self._clock.now_ms()
        return await self._database.write(
            lambda tx: store.next_receipts(
                tx, acknowledged, now_ms=now_ms, until_ms=now_ms + RECEIPT_LEASE_MS, most=_MAX_RECEIPTS
            )
        )

    def _receipt(self, owed: OwedReceipt) -> Receipt:
        return Receipt(self.name, owed.reference, owed.status, self._clock.now_ms(), owed.failure)

    async def _rest(self, next_ms: int | None) -> None:
        rest_s = _MAX_REST_S
        if next_ms is not None:
            rest_s = min(rest_s, max(next_ms - self._clock.now_ms(), 0) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._owing.wait()
