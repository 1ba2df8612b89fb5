"""What one may do with messages."""

import asyncio
import math
from collections.abc import Callable, Sequence

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id, new_id
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import (
    DeadlinePassed,
    DomainError,
    IdempotencyInProgress,
    InvalidArgument,
    InvalidRecipient,
    NotCancellable,
    NotFound,
    StoreBusy,
)
from hydrasms_core.idempotency.model import check_key, fingerprint
from hydrasms_core.messaging import store
from hydrasms_core.messaging.accept import Acceptance, Outcome, Send
from hydrasms_core.messaging.happening import Untold, status_changes
from hydrasms_core.messaging.lanes import OneLane
from hydrasms_core.messaging.model import (
    MAX_BATCH,
    Accepted,
    Draft,
    Estimate,
    InboundMessage,
    Message,
    Status,
    check_content,
    may_become,
)
from hydrasms_core.messaging.numbering import PhoneNumber, parse_recipient
from hydrasms_core.messaging.ports import Charge, Consent, Credits, Happenings, Lanes, SendingAccounts
from hydrasms_core.messaging.text import measure
from hydrasms_core.paging import Page, page_of, page_request
from hydrasms_core.settings import MessagingSettings


class Messaging:
    """Sends messages and tells what became of them."""

    def __init__(
        self,
        database: Database,
        credits: Credits,
        consent: Consent,
        accounts: SendingAccounts,
        clock: Clock,
        settings: MessagingSettings,
        wake: Callable[[], None],
        lanes: Lanes | None = None,
        happenings: Happenings | None = None,
    ) -> None:
        self._database = database
        self._credits = credits
        self._accounts = accounts
        self._clock = clock
        self._settings = settings
        self._wake = wake
        self._happenings: Happenings = happenings or Untold()
        self._lanes: Lanes = lanes or OneLane()
        self._writers: list[GroupCommit[Send, Accepted]] = []
        for lane in range(self._lanes.number):
            acceptance = Acceptance(credits, consent, lane)
            self._writers.append(
                GroupCommit(
                    database,
                    acceptance.commit,
                    acceptance.landed,
                    max_batch=settings.max_batch,
                    max_waiting=settings.max_waiting,
                    refusal=self._refusal_of_late,
                    told=_told,
                )
            )

    async def send(self, account_id: str, draft: Draft, *, actor: str) -> Accepted:
        """Accept one message: when this returns, debit, message and its place in the queue are durable.

        Raises, in this order: NotFound, AccountSuspended, SendingNotEnabled; InvalidIdempotencyKey,
        InvalidRecipient, InvalidContent; IdempotencyMismatch; RecipientOptedOut; InsufficientCredits. Whatever it
        raises, nothing was debited, stored or sent.
        """
        await self._accounts.require_sending(account_id)
        send = self.checked(account_id, draft, actor=actor)
        accepted = await (await self._writer(account_id)).submit(send)
        if not accepted.replayed:
            self._wake()
        return accepted

    async def send_batch(self, account_id: str, drafts: Sequence[Draft], *, actor: str) -> list[Outcome]:
        """Accept up to 1,000 messages, each on its own, and return one outcome each, in order."""
        await self._accounts.require_sending(account_id)
        if not 1 <= len(drafts) <= MAX_BATCH:
            raise InvalidArgument(f"A batch holds 1 to {MAX_BATCH:,} messages.", field="items")
        checked = [self._checked_or_refused(account_id, draft, actor) for draft in drafts]
        sends = [each for each in checked if isinstance(each, Send)]
        settled = iter(await (await self._writer(account_id)).submit_all(sends))
        self._wake()
        return [next(settled) if isinstance(each, Send) else each for each in checked]

    def checked(self, account_id: str, draft: Draft, *, actor: str, deadline: float = math.inf) -> Send:
        """Return a draft of an account that may send as what `accept_each` takes.

        Raises, in this order: InvalidIdempotencyKey, InvalidRecipient, InvalidContent.
        """
        key = check_key(draft.idempotency_key)
        recipient = _recipient(draft.recipient)
        content = check_content(draft.content)
        shape = measure(content)
        now_ms = self._clock.now_ms()
        message = Message(
            id=new_id(),
            account_id=account_id,
            sender=self._settings.sent_from,
            recipient=recipient,
            content=content,
            status=Status.QUEUED,
            credits=self._credits.price(content),
            encoding=shape.encoding,
            segments=shape.segments,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            expires_at_ms=now_ms + self._settings.validity_s * 1000,
        )
        return Send(
            message, actor, key, "" if key is None else fingerprint(recipient.e164, content), deadline
        )

    async def accept_each(self, sends: Sequence[Send]) -> list[Accepted | Exception]:
        """Accept sends of any accounts, each on its own, and return what became of each, in order.

        A DomainError is its caller's to see; any other exception is a fault of ours.
        """
        settled = await self._submit_each(sends)
        if any(isinstance(each, Accepted) and not each.replayed for each in settled):
            self._wake()
        return settled

    async def estimate(self, account_id: str, content: str) -> Estimate:
        """Say what a text costs an account and how it travels; raises NotFound and InvalidContent."""
        await self._accounts.require_account(account_id)
        shape = measure(check_content(content))
        index = shape.first_non_gsm_index
        return Estimate(
            credits=self._credits.price(content),
            encoding=shape.encoding,
            segments=shape.segments,
            units=shape.units,
            non_gsm_index=index,
            non_gsm_character="" if index is None else content[index],
        )

    async def get(self, account_id: str, message_id: str) -> Message:
        """Return one message; raises NotFound."""
        return await self._database.read(lambda tx: self._found(tx, account_id, message_id))

    async def list_sent(self, account_id: str, size: int, token: str) -> Page[Message]:
        """Return one page of an account's messages, newest first; raises NotFound for no such account."""
        await self._accounts.require_account(account_id)
        page = page_request(size, token, scope=f"messages:{account_id}")
        rows = await self._database.read(lambda tx: store.list_messages(tx, account_id, page))
        return page_of(rows, [row.id for row in rows], page)

    async def list_inbound(self, account_id: str, size: int, token: str) -> Page[InboundMessage]:
        """Return one page of what phones sent to an account, newest first; raises as `send` does for the account."""
        await self._accounts.require_sending(account_id)
        page = page_request(size, token, scope=f"inbound:{account_id}")
        rows = await self._database.read(lambda tx: store.list_inbound(tx, account_id, page))
        return page_of(rows, [row.id for row in rows], page)

    async def cancel(self, account_id: str, message_id: str, *, actor: str) -> Message:
        """Take a queued message back and refund it; a cancelled one is answered as it is.

        Raises NotFound, and NotCancellable once a carrier may have it.
        """

        async def work(tx: Transaction) -> Message:
            message, now_ms = await self._found(tx, account_id, message_id), self._clock.now_ms()
            if may_become(message.status, Status.CANCELLED) and await store.cancel_queued(
                tx, account_id, message_id, at_ms=now_ms
            ):
                charge = Charge(account_id, message_id, message.credits, actor)
                await self._credits.refund(tx, [charge], at_ms=now_ms)
                told = status_changes([((account_id, message_id), Status.CANCELLED, "", True)])
                await self._happenings.record(tx, told, at_ms=now_ms)
            # Whatever it was before: where it could not be taken, a worker or another caller was first.
            message = await self._found(tx, account_id, message_id)
            if message.status is not Status.CANCELLED:
                raise NotCancellable(
                    "The message has left the queue and can no longer be cancelled.",
                    metadata={"status": message.status.value},
                )
            return message

        return await self._database.write(work)

    async def drain(self) -> None:
        """Wait until every send that was taken in is answered."""
        for writer in self._writers:
            await writer.drain()

    async def _submit_each(self, sends: Sequence[Send]) -> list[Accepted | Exception]:
        if len(self._writers) == 1:
            return await self._writers[0].submit_each(sends)
        lanes: dict[int, list[int]] = {}
        for place, send in enumerate(sends):
            lanes.setdefault(await self._lanes.of(send.message.account_id), []).append(place)
        parts = await asyncio.gather(
            *(
                self._writers[lane].submit_each([sends[place] for place in places])
                for lane, places in lanes.items()
            )
        )
        settled = {
            place: outcome
            for places, part in zip(lanes.values(), parts, strict=True)
            for place, outcome in zip(places, part, strict=True)
        }
        return [settled[place] for place in range(len(sends))]

    async def _writer(self, account_id: str) -> GroupCommit[Send, Accepted]:
        return self._writers[await self._lanes.of(account_id)]

    async def _found(self, tx: Transaction, account_id: str, message_id: str) -> Message:
        found = await store.get_message(tx, account_id, message_id) if is_id(message_id) else None
        if found is None:
            raise NotFound("message")
        return found

    def _checked_or_refused(self, account_id: str, draft: Draft, actor: str) -> Send | DomainError:
        try:
            return self.checked(account_id, draft, actor=actor)
        except DomainError as error:
            return error

    def _refusal_of_late(self, send: Send) -> DomainError | None:
        return DeadlinePassed() if send.deadline <= self._clock.monotonic() else None


def _told(send: Send, error: Exception) -> Exception:
    """Return what the caller of a send hears of a database that refuses.

    Where another process holds the account, the sends of an idempotency key may be among what it is working on.
    """
    return IdempotencyInProgress() if send.key is not None and isinstance(error, StoreBusy) else error


def _recipient(text: str) -> PhoneNumber:
    if not text:
        raise InvalidRecipient(
            "recipient is required: a phone number in E.164, such as +447700900000.", field="recipient"
        )
    try:
        return parse_recipient(text)
    except ValueError as error:
        raise InvalidRecipient(str(error), field="recipient") from None
