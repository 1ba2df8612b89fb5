"""Taking texts in: what one transaction does with a batch of them."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hydrasms_core.consent.model import Wish
from hydrasms_core.consent.words import Ask
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import DomainError
from hydrasms_core.inbound import store
from hydrasms_core.inbound.model import Arrival, Outcome, Received
from hydrasms_core.inbound.ports import Consent, Holder, Push, Pushes, Shortcodes
from hydrasms_core.inbound.replies import HOUR_MS, Reply, reply_to
from hydrasms_core.inbound.store import Reference
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happening, Happenings

_CHANGES = {Outcome.OPTED_OUT: "recipient_opted_out", Outcome.OPTED_IN: "recipient_opted_in"}
_NOBODY = ""


class Route(NamedTuple):
    """Where a text goes: an account, or nobody where that is empty, and what it is to it."""

    account_id: str
    outcome: Outcome
    push_to: str | None = None
    """The shortcode's webhook, where texts are pushed to one."""


class Item(NamedTuple):
    """A text to take in. Where `account_id` is not None it is taken in for that account alone, or else not at all."""

    arrival: Arrival
    account_id: str | None = None


class Stored(NamedTuple):
    """A text that was taken in, and whether something is to be done about it by workers."""

    received: Received
    calls_workers: bool


class Intake:
    """Takes in batches of texts of one lane.

    A text that has come before, in this batch or an earlier one, and one that is not for the account that it was
    taken for have no outcome: None says that one has to look again.
    """

    def __init__(
        self,
        shortcodes: Shortcodes,
        consent: Consent,
        pushes: Pushes,
        happenings: Happenings,
        *,
        replies_per_hour: int,
        own_number: str | None,
    ) -> None:
        self._shortcodes = shortcodes
        self._consent = consent
        self._pushes = pushes
        self._happenings = happenings
        self._replies_per_hour = replies_per_hour
        self._own_number = own_number

    async def look(self, tx: Transaction, arrivals: Sequence[Arrival]) -> list[Received | Route]:
        """Return for each text what was answered when it came before, or else where it would go now."""
        taken = await store.find_taken(tx, {(a.carrier, a.reference) for a in arrivals})
        routes = await self._routes(tx, arrivals, hold=False)
        return [
            route if found is None else _answer_again(arrival, found)
            for arrival, route, found in zip(
                arrivals, routes, (taken.get((a.carrier, a.reference)) for a in arrivals), strict=True
            )
        ]

    async def commit(self, tx: Transaction, items: Sequence[Item]) -> list[Stored | DomainError | None]:
        """Work on a batch inside one transaction, in order of arrival."""
        routes = await self._routes(tx, [item.arrival for item in items], hold=True)
        firsts: dict[tuple[str, str], tuple[Arrival, Route]] = {}
        for (arrival, account_id), route in zip(items, routes, strict=True):
            if account_id in (None, route.account_id):
                firsts.setdefault((arrival.carrier, arrival.reference), (arrival, route))
        taken = await store.take_references(tx, [_reference(*first) for first in firsts.values()])
        fresh = [first for first in firsts.values() if first[0].id in taken]
        stored = await self._store(tx, fresh) if fresh else {}
        return [stored.get(item.arrival.id) for item in items]

    async def landed(
        self, tx: Transaction, items: Sequence[Item], outcomes: Sequence[Stored | DomainError | None]
    ) -> bool:
        """Tell whether a batch whose outcomes these are was committed; its texts came to be together."""
        for (arrival, _), outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Stored):
                account_id = outcome.received.message.account_id
                route = Route(account_id, outcome.received.outcome)
                return await store.is_taken(tx, _reference(arrival, route))
        return True

    async def _routes(self, tx: Transaction, arrivals: Sequence[Arrival], *, hold: bool) -> list[Route]:
        words = {arrival.word for arrival in arrivals if arrival.ask is None and arrival.word}
        numbers = {a.number for a in arrivals if a.ask is not None and a.number is not None}
        holders = await self._shortcodes.holders(tx, words) if words else {}
        senders = await self._consent.last_senders(tx, numbers, hold=hold) if numbers else {}
        return [
            _to_holder(holders.get(arrival.word))
            if arrival.ask is None
            else _to_last_sender(arrival.ask, senders.get(arrival.number or _NOBODY))
            for arrival in arrivals
        ]

    async def _store(self, tx: Transaction, fresh: Sequence[tuple[Arrival, Route]]) -> dict[str, Stored]:
        at_ms = max(arrival.taken_at_ms for arrival, _ in fresh)
        changed = await self._change(tx, fresh, at_ms)
        messages = [_message(arrival, route) for arrival, route in fresh]
        await store.insert_messages(tx, messages)
        happenings = [
            Happening(route.account_id, type_, arrival.id)
            for arrival, route in fresh
            if (type_ := _happening(route.outcome, changed=arrival.id in changed)) is not None
        ]
        if happenings:
            await self._happenings.record(tx, happenings, at_ms=at_ms)
        pushes = [
            Push(route.account_id, route.push_to, arrival.id)
            for arrival, route in fresh
            if route.push_to is not None
        ]
        if pushes:
            await self._pushes.enqueue(tx, pushes, at_ms=at_ms)
        answered = await self._reply(tx, fresh, changed, at_ms)
        called = answered | {push.inbound_message_id for push in pushes}
        return {
            message.id: Stored(Received(message, route.outcome, duplicate=False), message.id in called)
            for message, (_, route) in zip(messages, fresh, strict=True)
        }

    async def _change(self, tx: Transaction, fresh: Sequence[tuple[Arrival, Route]], at_ms: int) -> set[str]:
        """Do as phones wish, and return the ids of the texts that changed something."""
        asking = [
            (arrival.id, Wish(route.account_id, arrival.number, route.outcome is Outcome.OPTED_IN))
            for arrival, route in fresh
            if route.outcome in _CHANGES and arrival.number is not None
        ]
        if not asking:
            return set()
        changed = await self._consent.follow(tx, [wish for _, wish in asking], at_ms=at_ms)
        return {message_id for (message_id, _), moved in zip(asking, changed, strict=True) if moved}

    async def _reply(
        self, tx: Transaction, fresh: Sequence[tuple[Arrival, Route]], changed: set[str], at_ms: int
    ) -> set[str]:
        """Queue the replies that are due, and return the ids of the texts that get one."""
        wanted = [
            reply
            for arrival, route in fresh
            if (reply := reply_to(arrival, route.outcome, changed=arrival.id in changed)) is not None
            and reply.recipient != self._own_number
        ]
        if not wanted:
            return set()
        # Last, for whoever holds this keeps all others who want to reply waiting.
        await store.hold_replies(tx)
        numbers = {reply.recipient for reply in wanted}
        got = Counter(await store.count_replies(tx, numbers, since_ms=at_ms - HOUR_MS))
        allowed: list[Reply] = []
        for reply in wanted:
            got[reply.recipient] += 1
            if got[reply.recipient] <= self._replies_per_hour:
                allowed.append(reply)
        if allowed:
            await store.queue_replies(tx, allowed)
        return {reply.id for reply in allowed}


def _to_holder(holder: Holder | None) -> Route:
    if holder is None:
        return Route(_NOBODY, Outcome.UNKNOWN_SHORTCODE)
    push_to = holder.shortcode_id if holder.active else None
    return Route(holder.account_id, Outcome.ROUTED, push_to)


def _to_last_sender(ask: Ask, account_id: str | None) -> Route:
    if ask is Ask.HELP:
        return Route(account_id or _NOBODY, Outcome.HELP)
    if account_id is None:
        # There is nobody whose messages could end or begin.
        return Route(_NOBODY, Outcome.UNKNOWN_SHORTCODE)
    return Route(account_id, Outcome.OPTED_OUT if ask is Ask.STOP else Outcome.OPTED_IN)


def _happening(outcome: Outcome, *, changed: bool) -> str | None:
    if outcome is Outcome.ROUTED:
        return "inbound_received"
    return _CHANGES.get(outcome) if changed else None


def _message(arrival: Arrival, route: Route) -> InboundMessage:
    return InboundMessage(
        arrival.id,
        route.account_id,
        arrival.sender,
        arrival.word,
        arrival.content,
        None,
        arrival.received_at_ms,
    )


def _reference(arrival: Arrival, route: Route) -> Reference:
    return Reference(
        arrival.carrier, arrival.reference, route.account_id, arrival.id, route.outcome, arrival.taken_at_ms
    )


def _answer_again(arrival: Arrival, taken: store.Taken) -> Received:
    message = taken.message
    if message is None:
        route = Route(taken.account_id, taken.outcome)
        message = _message(arrival._replace(id=taken.message_id), route)
    return Received(message, taken.outcome, duplicate=True)
