"""Following what happens: events after a place, now or as soon as there are any."""

import asyncio
import contextlib
import functools
import math
from collections.abc import Sequence

from hydrasms_base.log import get_logger
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.events import store
from hydrasms_core.events.bell import Bell
from hydrasms_core.events.model import BEGINNING, Event, EventPage, EventQuery, Place, place_of
from hydrasms_core.messaging.ports import SendingAccounts

_LOOK_EVERY_S = 1.0
_LOOKED_AT_ONCE = 1_000
_DEFAULT_DEADLINE_S = 30.0
# An answer must be on its way before its caller gives up.
_MARGIN_S = 0.5
# What was just committed may not be read before an older transaction has ended: then it is looked for again so soon.
_FIRST_AGAIN_S = 0.02
_LAST_AGAIN_S = 0.5
_MAX_PAGE_BYTES = 2_000_000
"""How large the texts of a page may be together, as UTF-8, so that an answer stays well below what gRPC carries."""

log = get_logger(__name__)


class Events:
    """Lists events, and waits for them."""

    def __init__(self, database: Database, accounts: SendingAccounts, bell: Bell) -> None:
        self._database = database
        self._accounts = accounts
        self._bell = bell
        self._ending = False

    async def list_events(
        self, account_id: str | None, query: EventQuery, *, within_s: float | None = None
    ) -> EventPage:
        """Return the events of an account, or (None) of all, that come after a place; see ListEventsRequest.

        Where there are none it waits for as long as the query says, but not so long that its answer would come
        later than `within_s` from now. A place that is not known, because the database was restored or moved since
        it was given out, is taken for the beginning: events may then come again, and none is missed. Raises, in
        this order: NotFound, AccountSuspended, SendingNotEnabled; InvalidPageToken; StoreUnavailable.
        """
        if account_id is not None:
            await self._accounts.require_sending(account_id)
        loop = asyncio.get_running_loop()
        limit_s = (_DEFAULT_DEADLINE_S if within_s is None else within_s) - _MARGIN_S
        until = loop.time() + min(query.wait_ms / 1000, limit_s)
        with self._bell.listening(account_id) as rung:
            place = await self._beginning(query)
            again_s = math.inf
            while True:
                found = await self._database.read(
                    lambda tx: store.read_after(tx, account_id, place, most=query.size)
                )
                left_s = until - loop.time()
                if found or left_s <= 0 or self._ending:
                    events = _bounded(found)
                    return EventPage(events, events[-1].place if events else place)
                again_s = await _rung_or_time(rung, min(left_s, again_s), again_s)

    async def run(self) -> None:
        """Look once a second what other processes have added, and ring for those who wait for it; until cancelled.

        Before that it sees to the order of events that come from another database.
        """
        settled = False
        last: Place | None = None
        while True:
            with contextlib.suppress(StoreUnavailable):
                if not settled:
                    await self._settle_order()
                    settled = True
                last = await self._look_out(last) if self._bell.is_heard else None
            await asyncio.sleep(_LOOK_EVERY_S)

    def stop(self) -> None:
        """Answer those who wait with what there is, and let nobody wait any more."""
        self._ending = True
        self._bell.ring_for_all()

    async def _beginning(self, query: EventQuery) -> Place:
        if query.after:
            place = place_of(query.after)
            if place == BEGINNING or await self._database.read(lambda tx: store.is_known(tx, place)):
                return place
            log.warning("event_place_unknown")
            return BEGINNING
        return await self._database.read(store.newest) if query.from_now else BEGINNING

    async def _settle_order(self) -> None:
        settled = await self._database.write(store.settle_order)
        if settled:
            log.warning("events_from_elsewhere", events=settled)

    async def _look_out(self, last: Place | None) -> Place:
        """Ring for those who have events after a place (None: nobody was waiting until now); returns the last one."""
        if last is None:
            place, more = await self._database.read(store.newest), False
            # Of what came before this look nobody has been told.
            self._bell.ring_for_all()
        else:
            place, more = last, True
        while more:
            look = functools.partial(store.accounts_after, place=place, most=_LOOKED_AT_ONCE)
            accounts, place, more = await self._database.read(look)
            if accounts:
                self._bell.ring(accounts)
        return place


async def _rung_or_time(rung: asyncio.Event, seconds: float, again_s: float) -> float:
    """Wait for the bell or for the time to pass, and return how soon to look again should nothing be found."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await rung.wait()
    if rung.is_set():
        rung.clear()
        return _FIRST_AGAIN_S
    return again_s * 2 if again_s < _LAST_AGAIN_S else math.inf


def _bounded(found: Sequence[Event]) -> Sequence[Event]:
    """Return the first events, at least one, whose texts are not too large together."""
    size = 0
    for number, event in enumerate(found):
        if event.inbound is not None:
            size += len(event.inbound.content.encode("utf-8", "replace"))
        if size > _MAX_PAGE_BYTES and number:
            return found[:number]
    return found
