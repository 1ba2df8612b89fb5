"""Carriers' receipts: each is stored as it came, and at most one moves its message."""

from collections import Counter
from collections.abc import Sequence

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import Receipt
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.messaging import delivery_store as store
from hydrasms_core.messaging.delivery import Move, Report, follow, storable
from hydrasms_core.messaging.delivery_store import StoredReceipt
from hydrasms_core.messaging.happening import Untold, status_changes
from hydrasms_core.messaging.ports import Happenings

Outcomes = Counter[tuple[str, str]]
"""How many receipts there were, by carrier and by what they did: moved, ignored or parked."""

_NOBODY = ("", "")
_MAX_CALLS = 64
_MAX_WAITING_CALLS = 1_000


class ReceiptIntake:
    """Takes receipts in; it implements `carriers.base.Reports`."""

    def __init__(
        self, database: Database, clock: Clock, metrics: Metrics, happenings: Happenings | None = None
    ) -> None:
        self._clock = clock
        self._happenings: Happenings = happenings or Untold()
        self._intake: GroupCommit[Sequence[Receipt], Outcomes] = GroupCommit(
            database, self._commit, max_batch=_MAX_CALLS, max_waiting=_MAX_WAITING_CALLS
        )
        self._received = metrics.counter(
            "receipts", "Receipts taken in, by carrier and by what they did.", ("carrier", "outcome")
        )

    async def receive(self, receipts: Sequence[Receipt]) -> None:
        """Take reports in; durable when this returns.

        One that matches a message moves it where the state machine allows; one that matches none is parked
        until a carrier's answer brings its reference. Raises StoreUnavailable and Overloaded: then nothing was
        taken in, and the carrier must report again.
        """
        if not receipts:
            return
        for (carrier, outcome), number in (await self._intake.submit(receipts)).items():
            self._received.labels(carrier, outcome).inc(number)

    async def _commit(self, tx: Transaction, calls: Sequence[Sequence[Receipt]]) -> list[Outcomes]:
        at_ms = self._clock.now_ms()
        receipts = [receipt for call in calls for receipt in call]
        stored = iter(await take_in(tx, receipts, at_ms=at_ms, happenings=self._happenings))
        return [Counter(_outcome(next(stored)) for _ in call) for call in calls]


async def take_in(
    tx: Transaction, receipts: Sequence[Receipt], *, at_ms: int, happenings: Happenings | None = None
) -> list[StoredReceipt]:
    """Store receipts, move the messages that they are about, and return the rows that were stored, in order."""
    references = {(receipt.carrier, receipt.reference) for receipt in receipts}
    known = await store.hold_references(tx, references)
    reports = []
    for receipt in receipts:
        message, standing, _ = known.get((receipt.carrier, receipt.reference), (_NOBODY, None, 0))
        reports.append(Report(message, standing, receipt.status, storable(receipt.failure)))
    applied, moves = follow(reports)
    rows = [
        StoredReceipt(
            new_id(),
            receipt.carrier,
            receipt.reference,
            *report.message,
            receipt.status,
            report.failure,
            int(moved),
            receipt.received_at_ms,
        )
        for receipt, report, moved in zip(receipts, reports, applied, strict=True)
    ]
    await store.add_receipts(tx, rows)
    lanes = {message: lane for message, _, lane in known.values()}
    for lane in sorted({lanes[move.message] for move in moves}):
        await store.apply_moves(tx, [move for move in moves if lanes[move.message] == lane], at_ms=at_ms)
    await _tell(tx, moves, at_ms, happenings)
    return rows


async def apply_parked(
    tx: Transaction,
    carrier: str,
    references: Sequence[str],
    *,
    at_ms: int,
    happenings: Happenings | None = None,
) -> None:
    """Let the receipts speak that came before these references were known, in the order in which they came."""
    parked = await store.find_parked(tx, carrier, references)
    if not parked:
        return
    known = await store.hold_references(tx, {(carrier, row.reference) for row in parked})
    reports = [Report(*known[carrier, row.reference][:2], row.status, row.failure) for row in parked]
    applied, moves = follow(reports)
    await store.match_parked(
        tx,
        [
            (row.id, *report.message, int(moved))
            for row, report, moved in zip(parked, reports, applied, strict=True)
        ],
    )
    if moves:
        await store.apply_moves(tx, moves, at_ms=at_ms)
        await _tell(tx, moves, at_ms, happenings)


async def _tell(tx: Transaction, moves: Sequence[Move], at_ms: int, happenings: Happenings | None) -> None:
    if moves and happenings is not None:
        told = status_changes((move.message, move.status, move.failure, False) for move in moves)
        await happenings.record(tx, told, at_ms=at_ms)


def _outcome(row: StoredReceipt) -> tuple[str, str]:
    if not row.message_id:
        return row.carrier, "parked"
    return row.carrier, "moved" if row.applied else "ignored"
