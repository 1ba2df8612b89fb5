"""What one may do with shortcodes."""

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id, new_id
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import AlreadyExists, NotFound, ShortcodeLimitReached
from hydrasms_core.idempotency.model import check_key, fingerprint
from hydrasms_core.idempotency.once import Once
from hydrasms_core.messaging.ports import Happening, Happenings
from hydrasms_core.paging import Page, page_of, page_request
from hydrasms_core.shortcodes import store
from hydrasms_core.shortcodes.folding import fold
from hydrasms_core.shortcodes.model import (
    NO_SECRETS,
    ChangedShortcode,
    HookedShortcode,
    NewShortcode,
    Routing,
    RoutingReason,
    Shortcode,
    ShortcodeChange,
    check_change,
    check_new_shortcode,
    check_text,
    is_word,
    routing_before_lookup,
    routing_to,
)
from hydrasms_core.shortcodes.ports import Accounts, Hooks, Plans


class Shortcodes:
    """Keeps shortcodes, as many an account as its plan covers.

    Whatever changes how many an account has, or may have, holds its plan first: so none is claimed while the plan
    lapses, and of claims that race no more succeed than the plan covers.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        plans: Plans,
        hooks: Hooks,
        happenings: Happenings,
        clock: Clock,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._plans = plans
        self._hooks = hooks
        self._happenings = happenings
        self._clock = clock

    async def create(self, new: NewShortcode) -> ChangedShortcode:
        """Claim a word for an account, and give it its webhook.

        Raises InvalidArgument, ShortcodeReserved, InvalidIdempotencyKey, NotFound for the account,
        IdempotencyMismatch, AlreadyExists where anybody has the word, ShortcodeLimitReached, and what `Hooks.put`
        raises. A replay shows no secret.
        """
        word = check_new_shortcode(new)
        # The secret is left out: people choose it, and from a digest of it one could find it by trying.
        request = fingerprint(word, new.webhook_url, str(new.secret is not None), str(new.retries))
        once = Once(new.account_id, "shortcode.create", check_key(new.idempotency_key), request)
        shortcode_id, now_ms = new_id(), self._clock.now_ms()

        async def work(tx: Transaction) -> ChangedShortcode:
            limit = await self._plans.hold_limit(tx, new.account_id)
            earlier = await once.earlier(tx)
            if earlier is not None:
                found = await self._hooked(tx, await _shortcode(tx, new.account_id, earlier))
                return ChangedShortcode(found, replayed=True)
            await _claim(tx, shortcode_id, new.account_id, word, limit=limit, at_ms=now_ms)
            made = NO_SECRETS
            if new.webhook_url:
                made = await self._hooks.put(
                    tx,
                    new.account_id,
                    shortcode_id,
                    word=word,
                    url=new.webhook_url,
                    auth=new.secret,
                    retries=new.retries,
                    at_ms=now_ms,
                )
            await once.remember(tx, shortcode_id, now_ms)
            shortcode = Shortcode(shortcode_id, new.account_id, word, True, now_ms, now_ms)
            return ChangedShortcode(await self._hooked(tx, shortcode), made)

        return await self._database.write(work)

    async def get(self, account_id: str, named: str) -> HookedShortcode:
        """Return an account's shortcode by its id or its word; raises NotFound, also where another has it."""

        async def work(tx: Transaction) -> HookedShortcode:
            return await self._hooked(tx, await _shortcode(tx, account_id, named))

        return await self._database.read(work)

    async def update(self, account_id: str, named: str, change: ShortcodeChange) -> ChangedShortcode:
        """Change what is set and leave the rest.

        Raises NotFound, InvalidArgument where it is about a webhook that there is not, and what `Hooks.put` raises.
        """
        now_ms = self._clock.now_ms()

        async def work(tx: Transaction) -> ChangedShortcode:
            shortcode = await _held(tx, account_id, named)
            before = await self._hooked(tx, shortcode)
            check_change(change, has_hook=before.hook is not None)
            if change.is_empty or (change.webhook_url == "" and before.hook is None):
                return ChangedShortcode(before)
            made = await self._hooks.put(
                tx,
                account_id,
                shortcode.id,
                word=shortcode.word,
                url=change.webhook_url,
                auth=change.secret,
                retries=change.retries,
                at_ms=now_ms,
            )
            await store.touch(tx, account_id, shortcode.id, at_ms=now_ms)
            return ChangedShortcode(
                await self._hooked(tx, await _shortcode(tx, account_id, shortcode.id)), made
            )

        return await self._database.write(work)

    async def delete(self, account_id: str, named: str) -> None:
        """Release a shortcode; the oldest that the plan then covers as well takes its place. Raises NotFound."""
        now_ms = self._clock.now_ms()

        async def work(tx: Transaction) -> None:
            await _shortcode(tx, account_id, named)
            limit = await self._plans.hold_limit(tx, account_id)
            shortcode = await _held(tx, account_id, named)
            await self._hooks.remove(tx, account_id, shortcode.id, at_ms=now_ms)
            await store.delete(tx, account_id, shortcode.id)
            await self._fit(tx, account_id, limit, at_ms=now_ms)

        await self._database.write(work)

    async def list_all(self, account_id: str, size: int, token: str) -> Page[HookedShortcode]:
        """Return one page of an account's shortcodes, newest first.

        Raises NotFound for the account, InvalidArgument and InvalidPageToken.
        """
        await self._accounts.require_account(account_id)
        page = page_request(size, token, scope=f"shortcodes:{account_id}")

        async def work(tx: Transaction) -> list[HookedShortcode]:
            rows = await store.list_page(tx, account_id, page)
            hooks = await self._hooks.find(tx, account_id, [row.id for row in rows])
            return [HookedShortcode(row, hooks.get(row.id)) for row in rows]

        rows = await self._database.read(work)
        return page_of(rows, [row.shortcode.id for row in rows], page)

    async def who_gets(self, text: str) -> Routing:
        """Say who would receive a text now and why, without receiving it; raises InvalidArgument."""
        routing = routing_before_lookup(check_text(text))
        if routing.reason is not RoutingReason.UNKNOWN_SHORTCODE or not is_word(routing.word):
            return routing

        async def work(tx: Transaction) -> HookedShortcode | None:
            shortcode = await store.find_word(tx, routing.word)
            return None if shortcode is None else await self._hooked(tx, shortcode)

        found = await self._database.read(work)
        if found is None:
            return routing
        return Routing(routing_to(found), routing.word, routing.content, found)

    async def plan_changed(self, tx: Transaction, account_id: str, *, at_ms: int) -> None:
        """Deactivate the account's shortcodes beyond those that its new plan covers, and reactivate those within."""
        limit = await self._plans.hold_limit(tx, account_id)
        await self._fit(tx, account_id, limit, at_ms=at_ms)

    async def _fit(self, tx: Transaction, account_id: str, limit: int, *, at_ms: int) -> None:
        """Let the oldest shortcodes be active, as many as the limit says, and no other; the plan is held."""
        everyone = await store.oldest_first(tx, account_id)
        changed = [
            (shortcode, covered)
            for shortcode, covered in ((each, place < limit) for place, each in enumerate(everyone))
            if shortcode.active is not covered
        ]
        if not changed:
            return
        await store.set_active(tx, account_id, {each.id: covered for each, covered in changed}, at_ms=at_ms)
        happenings = [
            Happening(
                account_id, "shortcode_reactivated" if covered else "shortcode_deactivated", shortcode.word
            )
            for shortcode, covered in changed
        ]
        await self._happenings.record(tx, happenings, at_ms=at_ms)

    async def _hooked(self, tx: Transaction, shortcode: Shortcode) -> HookedShortcode:
        hooks = await self._hooks.find(tx, shortcode.account_id, [shortcode.id])
        return HookedShortcode(shortcode, hooks.get(shortcode.id))


async def _claim(
    tx: Transaction, shortcode_id: str, account_id: str, word: str, *, limit: int, at_ms: int
) -> None:
    """Give a word to an account whose plan is held; raises AlreadyExists and ShortcodeLimitReached."""
    # Looked for before the limit counts, for who has the word already is helped by nothing else.
    if await store.find_word(tx, word) is not None:
        raise _taken()
    if len(await store.oldest_first(tx, account_id)) >= limit:
        raise ShortcodeLimitReached(
            f"The plan covers {limit} shortcode{'s' if limit != 1 else ''}: delete one first, or change the plan.",
            metadata={"limit": str(limit)},
        )
    if not await store.claim(tx, shortcode_id, account_id, word, at_ms=at_ms):
        raise _taken()


def _taken() -> AlreadyExists:
    # Whose it is stays unsaid.
    return AlreadyExists(
        "This shortcode is taken: choose another word.", field="word", metadata={"resource": "shortcode"}
    )


async def _shortcode(tx: Transaction, account_id: str, named: str) -> Shortcode:
    """Return an account's shortcode by its id or its word; raises NotFound."""
    if is_id(named):
        found = await store.find_id(tx, account_id, named)
    else:
        word = fold(named)
        found = await store.find_word(tx, word) if is_word(word) else None
    if found is None or found.account_id != account_id:
        raise NotFound("shortcode")
    return found


async def _held(tx: Transaction, account_id: str, named: str) -> Shortcode:
    """Return an account's shortcode, which nobody else changes until the transaction ends; raises NotFound."""
    shortcode = await _shortcode(tx, account_id, named)
    if not await store.hold(tx, account_id, shortcode.id):
        raise NotFound("shortcode")
    return await _shortcode(tx, account_id, shortcode.id)
