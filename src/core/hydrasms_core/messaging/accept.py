"""Accepting sends: what one transaction does with a batch of them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import DomainError, IdempotencyMismatch, RecipientOptedOut
from hydrasms_core.messaging import store
from hydrasms_core.messaging.model import Accepted, Message
from hydrasms_core.messaging.ports import Charge, Consent, Credits
from hydrasms_core.messaging.store import KeyedSend

Outcome = Accepted | DomainError


class Send(NamedTuple):
    """A checked send: the message that it will be, who asks, and its idempotency key where it has one.

    Past `deadline`, of the monotonic clock, nobody waits for it any more and it is not to be begun.
    """

    message: Message
    actor: str
    key: str | None
    fingerprint: str
    deadline: float = math.inf


class Acceptance:
    """Debits and stores batches of sends of one lane; every send gets its own outcome, in order."""

    def __init__(self, credits: Credits, consent: Consent, lane: int = 0) -> None:
        self._credits = credits
        self._consent = consent
        self._lane = lane

    async def commit(self, tx: Transaction, sends: Sequence[Send]) -> list[Outcome]:
        """Work on a batch inside one transaction, in order of arrival."""
        known, held = await self._known(tx, sends)
        outcomes: list[Outcome | None] = [None] * len(sends)
        waiting = list(range(len(sends)))
        while waiting:
            # One send a key goes first; its twins in the batch then find what it made, or, where it was
            # refused, take its place.
            first, twins, taken = [], [], set()
            for index in waiting:
                send = sends[index]
                earlier = known.get((send.message.account_id, send.key)) if send.key is not None else None
                if earlier is not None:
                    outcomes[index] = _answer_again(earlier, send)
                elif send.key is None or (send.message.account_id, send.key) not in taken:
                    taken.add((send.message.account_id, send.key or ""))
                    first.append(index)
                else:
                    twins.append(index)
            taken_first = await self._take(tx, [sends[index] for index in first], held)
            # Credits have moved.
            held = None
            for index, outcome in zip(first, taken_first, strict=True):
                outcomes[index] = outcome
                send = sends[index]
                if send.key is not None and isinstance(outcome, Accepted):
                    key = (send.message.account_id, send.key)
                    known[key] = KeyedSend(send.key, send.fingerprint, outcome.message)
            waiting = twins
        return [outcome for outcome in outcomes if outcome is not None]

    async def _known(
        self, tx: Transaction, sends: Sequence[Send]
    ) -> tuple[dict[tuple[str, str], KeyedSend], Mapping[str, int] | None]:
        """Return what earlier sends with these keys made, and all accounts' credits where they were looked up."""
        keys = {(send.message.account_id, send.key) for send in sends if send.key is not None}
        if not keys:
            return {}, None
        # Whoever else commits sends of these accounts has done so before the look, or waits until after this. Those
        # without a key are held as well, or two batches could later wait for each other.
        held = await self._credits.hold(tx, {send.message.account_id for send in sends})
        return dict(await store.find_keyed(tx, sorted(keys))), held

    async def landed(self, tx: Transaction, sends: Sequence[Send], outcomes: Sequence[Outcome]) -> bool:
        """Tell whether a batch whose outcomes these are was committed; its messages came to be together."""
        made = [o.message for o in outcomes if isinstance(o, Accepted) and not o.replayed]
        if not made:
            return True
        await self._credits.hold(tx, {message.account_id for message in made})
        stored = await store.find_ids(tx, [(message.account_id, message.id) for message in made])
        return len(stored) == len(made)

    async def _take(
        self, tx: Transaction, sends: Sequence[Send], held: Mapping[str, int] | None
    ) -> list[Outcome]:
        """Take sends that are none's repeats: those of phones that want none of the account are not paid for."""
        if not sends:
            return []
        refusing = await self._consent.refusing(tx, {_pair(send) for send in sends})
        if not refusing:
            return await self._pay_and_store(tx, sends, held)
        wanted = iter(await self._pay_and_store(tx, [s for s in sends if _pair(s) not in refusing], held))
        return [RecipientOptedOut() if _pair(send) in refusing else next(wanted) for send in sends]

    async def _pay_and_store(
        self, tx: Transaction, sends: Sequence[Send], held: Mapping[str, int] | None
    ) -> list[Outcome]:
        if not sends:
            return []
        charges = [
            Charge(send.message.account_id, send.message.id, send.message.credits, send.actor)
            for send in sends
        ]
        at_ms = max(send.message.created_at_ms for send in sends)
        refusals = await self._credits.spend(tx, charges, at_ms=at_ms, held=held)
        paid = [send for send, refusal in zip(sends, refusals, strict=True) if refusal is None]
        if paid:
            keyed = [KeyedSend(s.key, s.fingerprint, s.message) for s in paid if s.key is not None]
            await store.insert_queued(tx, [send.message for send in paid], keyed, lane=self._lane)
        return [
            Accepted(send.message, replayed=False) if refusal is None else refusal
            for send, refusal in zip(sends, refusals, strict=True)
        ]


def _pair(send: Send) -> tuple[str, str]:
    return send.message.account_id, send.message.recipient.e164


def _answer_again(earlier: KeyedSend, send: Send) -> Outcome:
    if earlier.fingerprint != send.fingerprint:
        return IdempotencyMismatch()
    return Accepted(earlier.message, replayed=True)
