"""What one may do with texts from phones."""

from collections.abc import Callable
from typing import TypeVar

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id, new_id
from hydrasms_core.carriers.base import InboundText
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.transaction import Database, Transaction, Work
from hydrasms_core.errors import NotFound, StoreBusy
from hydrasms_core.inbound import store
from hydrasms_core.inbound.intake import Intake, Item, Route, Stored
from hydrasms_core.inbound.model import Arrival, Received, checked, number_of
from hydrasms_core.inbound.ports import Accounts, Consent, Pushes, Shortcodes
from hydrasms_core.messaging import store as messages
from hydrasms_core.messaging.lanes import OneLane
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happenings, Lanes
from hydrasms_core.paging import Page, page_of, page_request
from hydrasms_core.settings import InboundSettings

T = TypeVar("T")

_NOBODY = ""
# Somebody claims or releases the shortcode between every look and every try: that ends.
_MAX_TRIES = 5


class Inbound:
    """Takes texts in from carriers, each once, and shows operators those that are nobody's.

    `wake` is called when a text has been committed about which workers have something to do.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        shortcodes: Shortcodes,
        consent: Consent,
        pushes: Pushes,
        happenings: Happenings,
        clock: Clock,
        settings: InboundSettings,
        wake: Callable[[], None],
        lanes: Lanes | None = None,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._clock = clock
        self._wake = wake
        self._lanes: Lanes = lanes or OneLane()
        intake = Intake(
            shortcodes,
            consent,
            pushes,
            happenings,
            replies_per_hour=settings.replies_per_hour,
            own_number=number_of(settings.sent_from),
        )
        self._writers: list[GroupCommit[Item, Stored | None]] = [
            GroupCommit(
                database,
                intake.commit,
                intake.landed,
                max_batch=settings.max_batch,
                max_waiting=settings.max_waiting,
            )
            for _ in range(self._lanes.number)
        ]
        # Looks go together as commits do.
        self._looks: GroupCommit[Arrival, Received | Route] = GroupCommit(
            _Reading(database),
            intake.look,
            max_batch=settings.max_batch,
            max_waiting=settings.max_waiting,
        )

    async def receive(self, text: InboundText) -> Received:
        """Take in a text: when this returns, it and all that follows from it are durable.

        A text whose carrier and reference came before is answered as the first time and changes nothing. Raises
        InvalidArgument, Overloaded and StoreUnavailable; then nothing was taken in.
        """
        arrival = checked(text, new_id(), now_ms=self._clock.now_ms())
        # With one lane there is nothing to find out before: whose text it is shows when it is written.
        place: Received | Route | None = None
        if self._lanes.number > 1:
            place = await self._looks.submit(arrival)
        for _ in range(_MAX_TRIES):
            if isinstance(place, Received):
                return place
            stored = await self._write(arrival, place)
            if stored is not None:
                if stored.calls_workers:
                    self._wake()
                return stored.received
            place = await self._looks.submit(arrival)
        raise StoreBusy

    async def list_unowned(self, size: int, token: str) -> Page[InboundMessage]:
        """Return one page of the texts that are nobody's, newest first."""
        page = page_request(size, token, scope="unowned")
        rows = await self._database.read(lambda tx: messages.list_inbound(tx, _NOBODY, page))
        return page_of(rows, [row.id for row in rows], page)

    async def assign(self, message_id: str, account_id: str) -> InboundMessage:
        """Give a text that is nobody's to an account; one that the account has already is returned as it is.

        Raises NotFound for no such account, and for no such text, which one of another account is as well.
        """
        await self._accounts.require_account(account_id)
        if not is_id(message_id):
            raise NotFound("inbound message")

        async def work(tx: Transaction) -> InboundMessage:
            await store.assign(tx, message_id, account_id)
            found = await store.find_message(tx, account_id, message_id)
            if found is None:
                raise NotFound("inbound message")
            return found

        return await self._database.write(work)

    async def drain(self) -> None:
        """Wait until every text that was taken in is answered."""
        for writer in self._writers:
            await writer.drain()

    async def _write(self, arrival: Arrival, route: Route | None) -> Stored | None:
        if route is None or self._lanes.number == 1:
            return await self._writers[0].submit(Item(arrival))
        lane = await self._lanes.of(route.account_id)
        return await self._writers[lane].submit(Item(arrival, route.account_id))


class _Reading:
    """A database that only reads, for batches that change nothing."""

    writes_in_turn = False

    def __init__(self, database: Database) -> None:
        self.read = database.read
        self.close = database.close

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        """Run work that changes nothing."""
        return await self.read(work)
