"""Sends that an edge gathered from many callers: each is answered as if it had come alone."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydrasms_base.clock import Clock
from hydrasms_base.log import get_logger
from hydrasms_core.errors import DomainError, InternalError, InvalidArgument
from hydrasms_core.messaging.accept import Outcome, Send
from hydrasms_core.messaging.model import MAX_BATCH, Accepted, Forwarded
from hydrasms_core.messaging.ports import SendingKeys
from hydrasms_core.messaging.service import Messaging

# Whoever holds a key is an account, whichever way its send comes.
_ACTOR = "account"

log = get_logger(__name__)


class _Pending(NamedTuple):
    """A send on its way to the writer, and its place among those that came with it."""

    place: int
    send: Send


class Forwarding:
    """Accepts the sends of many callers; nothing that is wrong with one changes anything for another."""

    def __init__(self, messaging: Messaging, keys: SendingKeys, clock: Clock) -> None:
        self._messaging = messaging
        self._keys = keys
        self._clock = clock

    async def send_each(self, items: Sequence[Forwarded]) -> list[Outcome]:
        """Accept 1 to 1,000 sends and return one outcome each, in order.

        An item's refusal is the first of: UnknownApiKey, ApiKeyDisabled; then what `Messaging.send` raises; and
        DeadlinePassed where its time was up before its turn, InternalError where the fault is ours. Cancelled, it
        takes back what no transaction has begun with.
        """
        if not 1 <= len(items) <= MAX_BATCH:
            raise InvalidArgument(f"A batch holds 1 to {MAX_BATCH:,} messages.", field="items")
        came_at = self._clock.monotonic()
        outcomes: list[Outcome] = [_UNSETTLED] * len(items)
        try:
            await self._keys.refresh()
        except DomainError as error:
            return [error] * len(items)
        pending: list[_Pending] = []
        unknown: list[int] = []
        for place, item in enumerate(items):
            try:
                account_id = self._keys.known_sender(item.key_digest)
                if account_id is None:
                    unknown.append(place)
                    continue
                pending.append(_Pending(place, self._checked(account_id, item, came_at)))
            except Exception as error:  # noqa: BLE001 - whatever one item does, its neighbours must be answered
                outcomes[place] = _shown(error, item)
        if not unknown:
            await self._accept(items, pending, outcomes)
        else:
            async with asyncio.TaskGroup() as together:
                together.create_task(self._accept(items, pending, outcomes))
                together.create_task(self._look_up_and_accept(items, unknown, outcomes, came_at))
        return outcomes

    async def _look_up_and_accept(
        self, items: Sequence[Forwarded], places: Sequence[int], outcomes: list[Outcome], came_at: float
    ) -> None:
        found: Mapping[str, str | Exception]
        digests = {items[place].key_digest for place in places}
        try:
            found = await self._keys.senders_of(digests)
        except Exception as error:  # noqa: BLE001 - as above
            found = dict.fromkeys(digests, error)
        pending: list[_Pending] = []
        for place in places:
            item = items[place]
            sender = found[item.key_digest]
            try:
                if isinstance(sender, Exception):
                    raise sender
                pending.append(_Pending(place, self._checked(sender, item, came_at)))
            except Exception as error:  # noqa: BLE001 - as above
                outcomes[place] = _shown(error, item)
        await self._accept(items, pending, outcomes)

    async def _accept(
        self, items: Sequence[Forwarded], pending: Sequence[_Pending], outcomes: list[Outcome]
    ) -> None:
        if not pending:
            return
        settled: Sequence[Accepted | Exception]
        try:
            settled = await self._messaging.accept_each([each.send for each in pending])
        except Exception as error:  # noqa: BLE001 - as above
            settled = [error] * len(pending)
        for each, outcome in zip(pending, settled, strict=True):
            place = each.place
            outcomes[place] = _shown(outcome, items[place]) if isinstance(outcome, Exception) else outcome

    def _checked(self, account_id: str, item: Forwarded, came_at: float) -> Send:
        deadline = came_at + item.timeout_ms / 1000
        return self._messaging.checked(account_id, item.draft, actor=_ACTOR, deadline=deadline)


def _shown(error: Exception, item: Forwarded) -> DomainError:
    """Return an item's failure as its caller may see it; one that is our fault is logged under the item's id."""
    if isinstance(error, DomainError):
        return error
    log.error("internal_error", request_id=item.request_id, exc_info=error)
    return InternalError()


_UNSETTLED = InternalError()
