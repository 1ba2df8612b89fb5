"""What one may do with webhooks and what was pushed to them."""

from collections.abc import Callable

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id, new_id
from hydrasms_core.db.transaction import Database, IntegrityViolation, T, Transaction, Work
from hydrasms_core.errors import AlreadyDelivered, InvalidArgument, NotFound
from hydrasms_core.paging import Page, page_of, page_request
from hydrasms_core.webhooks import queue_store, store
from hydrasms_core.webhooks.endpoints import Endpoints
from hydrasms_core.webhooks.model import (
    MAX_REDELIVERED,
    Delivery,
    DeliveryStatus,
    DeliveryType,
    Endpoint,
    OwnWebhook,
    Redelivered,
    Rotated,
    check_overlap,
)
from hydrasms_core.webhooks.ports import KnownAccounts
from hydrasms_core.webhooks.queue_store import NewDelivery


class Webhooks:
    """Shows what was pushed, pushes again, and keeps endpoints and their secrets.

    `wake` is called after a commit that has queued something, so that a deliverer looks. What belongs to another
    account is answered as what does not exist.
    """

    def __init__(
        self,
        database: Database,
        accounts: KnownAccounts,
        endpoints: Endpoints,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._endpoints = endpoints
        self._clock = clock
        self._wake = wake

    async def list_deliveries(
        self,
        account_id: str,
        size: int,
        token: str,
        *,
        status: DeliveryStatus | None = None,
        endpoint_id: str = "",
    ) -> Page[Delivery]:
        """Return one page of an account's deliveries, newest first.

        Raises NotFound for the account, InvalidArgument and InvalidPageToken.
        """
        await self._accounts.require_account(account_id)
        scope = f"deliveries:{account_id}:{status or ''}:{endpoint_id}"
        page = page_request(size, token, scope=scope)
        if endpoint_id and not is_id(endpoint_id):
            return page_of([], [], page)
        rows = await self._database.read(
            lambda tx: store.list_deliveries(tx, account_id, page, status=status, endpoint_id=endpoint_id)
        )
        return page_of(rows, [row.id for row in rows], page)

    async def redeliver(self, account_id: str | None, delivery_id: str) -> Delivery:
        """Try a delivery again at once, with its schedule from the beginning; None: whichever account has it.

        One that is being tried just now goes on with that. Raises NotFound, AlreadyDelivered, and InvalidArgument
        where its endpoint is disabled or gone.
        """

        async def work(tx: Transaction) -> Delivery:
            now_ms = self._clock.now_ms()
            owner = (await _delivery(tx, account_id, delivery_id)).account_id
            await store.bring_delivery_forward(tx, owner, delivery_id, at_ms=now_ms)
            # As it is now that nobody else changes it.
            found = await _delivery(tx, owner, delivery_id)
            if found.status is DeliveryStatus.DELIVERED:
                raise AlreadyDelivered("The delivery was answered 2xx, and is not repeated.")
            if found.status is DeliveryStatus.DEAD:
                revived = await store.revive(tx, owner, delivery_id=delivery_id, most=1, at_ms=now_ms)
                if revived:
                    await queue_store.requeue(tx, revived, at_ms=now_ms)
                found = await _delivery(tx, owner, delivery_id)
                # Unless somebody else has just revived it.
                if found.status is DeliveryStatus.DEAD:
                    raise _no_receiver("delivery_id")
                return found
            return found

        return await self._queued(work)

    async def redeliver_dead(self, account_id: str, endpoint_id: str = "") -> Redelivered:
        """Try deliveries again that were given up, of one endpoint or of all that work, the oldest 10,000 at most.

        Raises NotFound for the account or the endpoint, and InvalidArgument for an endpoint that is disabled.
        """
        await self._accounts.require_account(account_id)

        async def work(tx: Transaction) -> Redelivered:
            now_ms = self._clock.now_ms()
            if endpoint_id:
                _require_working(await _endpoint(tx, account_id, endpoint_id))
            revived = await store.revive(
                tx, account_id, endpoint_id=endpoint_id, most=MAX_REDELIVERED, at_ms=now_ms
            )
            if revived:
                await queue_store.requeue(tx, revived, at_ms=now_ms)
            more = len(revived) == MAX_REDELIVERED and await store.has_dead(
                tx, account_id, endpoint_id=endpoint_id
            )
            return Redelivered(len(revived), more)

        return await self._queued(work)

    async def send_test(self, account_id: str, endpoint_id: str) -> Delivery:
        """Queue an event that says that it is a test; raises NotFound, and InvalidArgument where it is disabled."""
        delivery_id = new_id()

        async def work(tx: Transaction) -> Delivery:
            _require_working(await _endpoint(tx, account_id, endpoint_id))
            test = NewDelivery(account_id, delivery_id, endpoint_id, DeliveryType.TEST, "", "")
            await queue_store.queue(tx, [test], at_ms=self._clock.now_ms())
            return await _delivery(tx, account_id, delivery_id)

        return await self._queued(work)

    async def rotate_secret(
        self, account_id: str, endpoint_id: str, *, overlap_ms: int | None = None
    ) -> Rotated:
        """Make a new signing secret, beside which the one before is used for an overlap: a day where it is None.

        Raises InvalidArgument for an overlap out of bounds, and NotFound.
        """
        overlap_ms = check_overlap(overlap_ms)

        async def work(tx: Transaction) -> Rotated:
            now_ms = self._clock.now_ms()
            await _endpoint(tx, account_id, endpoint_id)
            return Rotated(
                *await self._endpoints.rotate(
                    tx, account_id, endpoint_id, until_ms=now_ms + overlap_ms, at_ms=now_ms
                )
            )

        return await self._database.write(work)

    async def get_endpoint(self, account_id: str, endpoint_id: str) -> Endpoint:
        """Return one endpoint; raises NotFound."""
        return await self._database.read(lambda tx: _endpoint(tx, account_id, endpoint_id))

    async def set_own(self, account_id: str, url: str) -> OwnWebhook:
        """Set the account's own webhook, which enables it again, or, with an empty URL, take it away.

        Raises NotFound for the account, and InvalidWebhookUrl.
        """
        await self._accounts.require_account(account_id)

        async def work(tx: Transaction) -> OwnWebhook:
            now_ms = self._clock.now_ms()
            if url:
                return OwnWebhook(*await self._endpoints.put_own(tx, account_id, url, at_ms=now_ms))
            await self._endpoints.remove(tx, account_id, account_id, at_ms=now_ms)
            return OwnWebhook(None, None)

        try:
            return await self._database.write(work)
        except IntegrityViolation:
            # Somebody else has just set it for the first time: a second run changes what that made.
            return await self._database.write(work)

    async def _queued(self, work: Work[T]) -> T:
        done = await self._database.write(work)
        self._wake()
        return done


async def _delivery(tx: Transaction, account_id: str | None, delivery_id: str) -> Delivery:
    # PostgreSQL takes no NUL, not even to look for it.
    are_ids = is_id(delivery_id) and (account_id is None or is_id(account_id))
    found = await store.get_delivery(tx, account_id, delivery_id) if are_ids else None
    if found is None:
        raise NotFound("delivery")
    return found


async def _endpoint(tx: Transaction, account_id: str, endpoint_id: str) -> Endpoint:
    # PostgreSQL takes no NUL, not even to look for it.
    are_ids = is_id(account_id) and is_id(endpoint_id)
    found = await store.get_endpoint(tx, account_id, endpoint_id) if are_ids else None
    if found is None:
        raise NotFound("webhook endpoint")
    return found


def _require_working(endpoint: Endpoint) -> None:
    if endpoint.disabled_at_ms is not None:
        raise _no_receiver("endpoint_id")


def _no_receiver(field: str) -> InvalidArgument:
    return InvalidArgument(
        "The webhook is disabled or was taken away. Set its URL, the same one if it is right, and try again.",
        field=field,
    )
