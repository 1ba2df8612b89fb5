"""What one may ask of the ledger."""

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id, new_id
from hydrasms_billing import store
from hydrasms_billing.model import (
    MAX_BALANCE,
    Granted,
    Transaction,
    TransactionKind,
    VerifyReport,
    check_grant_amount,
    check_reason,
)
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.transaction import Database
from hydrasms_core.db.transaction import Transaction as OpenTransaction
from hydrasms_core.errors import InvalidArgument, NotFound
from hydrasms_core.idempotency.model import check_key, fingerprint
from hydrasms_core.idempotency.store import recall, remember
from hydrasms_core.paging import Page, page_of, page_request

GRANT = "credits.grant"
"""The operation that a grant's idempotency key belongs to."""


class Billing:
    """Tells balances and transactions, and gives credits."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def balance(self, account_id: str) -> int:
        """Return an account's balance, in credits; raises NotFound."""
        return await self._database.read(lambda tx: _balance(tx, account_id))

    async def transactions(self, account_id: str, size: int, token: str) -> Page[Transaction]:
        """Return one page of an account's transactions, newest first.

        Raises InvalidArgument, InvalidPageToken and NotFound.
        """
        page = page_request(size, token, scope=f"transactions:{account_id}")

        async def work(tx: OpenTransaction) -> list[Transaction]:
            await _balance(tx, account_id)
            return await store.list_transactions(tx, account_id, page)

        rows = await self._database.read(work)
        return page_of(rows, [row.id for row in rows], page)

    async def grant(
        self, account_id: str, amount: int, reason: str, *, actor: str, idempotency_key: str | None = None
    ) -> Granted:
        """Give an account credits, once an idempotency key; durable when this returns.

        Raises, in this order: InvalidIdempotencyKey, InvalidArgument for a field out of its bounds; NotFound;
        IdempotencyMismatch; InvalidArgument where the balance would pass 2**62. Whatever it raises, nothing
        was granted.
        """
        key = check_key(idempotency_key)
        check_grant_amount(amount)
        check_reason(reason)
        digest = fingerprint(str(amount), reason)

        async def work(tx: OpenTransaction) -> Granted:
            balance = await _held_balance(tx, account_id)
            earlier = await recall(tx, account_id, GRANT, key, digest) if key is not None else None
            if earlier is not None:
                return Granted(await store.get_transaction(tx, account_id, earlier), balance, replayed=True)
            if balance + amount > MAX_BALANCE:
                raise InvalidArgument("The balance would be larger than 2**62 credits.", field="amount")
            granted = Transaction(
                id=new_id(),
                account_id=account_id,
                kind=TransactionKind.GRANT,
                amount=amount,
                actor=actor,
                created_at_ms=self._clock.now_ms(),
                reason=reason,
            )
            at_ms = granted.created_at_ms
            await store.change_balances(tx, {account_id: amount}, at_ms=at_ms)
            await store.insert_transaction(tx, granted)
            if key is not None:
                await remember(tx, account_id, GRANT, key, digest, granted.id, at_ms=at_ms)
            return Granted(granted, balance + amount, replayed=False)

        return await self._database.write(work)

    async def verify(self) -> VerifyReport:
        """Recompute the whole ledger from one consistent state; changes nothing."""
        return await verify_ledger(self._database)


async def _held_balance(tx: OpenTransaction, account_id: str) -> int:
    held = await store.hold_balances(tx, [account_id]) if is_id(account_id) else {}
    if account_id not in held:
        raise NotFound("account")
    return held[account_id]


async def _balance(tx: OpenTransaction, account_id: str) -> int:
    # A text that is no id never reaches the database: some of them it could not even hold.
    found = await store.find_balance(tx, account_id) if is_id(account_id) else None
    if found is None:
        raise NotFound("account")
    return found
