"""What one may do with accounts and API keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id, new_id
from hydrasms_base.keys import digest_key, display_prefix, generate_key
from hydrasms_base.secret import Secret
from hydrasms_core.accounts import store
from hydrasms_core.accounts.model import (
    Account,
    AccountChange,
    ApiKey,
    CreatedAccount,
    ImportedKey,
    IssuedKey,
    NewAccount,
    NewKey,
    RotatedKey,
    check_account_name,
    check_new_account,
    check_new_key,
    check_overlap,
    end_of_replaced,
)
from hydrasms_core.accounts.ports import OpeningLedger, PlanFollowers
from hydrasms_core.db.transaction import Database, IntegrityViolation, T, Transaction, Work
from hydrasms_core.errors import AlreadyExists, NotFound
from hydrasms_core.idempotency.model import check_key, fingerprint
from hydrasms_core.idempotency.once import Once
from hydrasms_core.paging import Page, page_of, page_request


class Accounts:
    """Keeps accounts and API keys.

    `changed` is called after every commit, so that whoever remembers accounts or keys in this process looks again;
    `followers` follow a change of plan in its own transaction.
    """

    def __init__(
        self,
        database: Database,
        ledger: OpeningLedger,
        clock: Clock,
        changed: Callable[[], None],
        followers: Sequence[PlanFollowers] = (),
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._changed = changed
        self._followers = followers

    async def create(self, new: NewAccount, *, actor: str) -> CreatedAccount:
        """Create an account, its opening grant and its first key, all or nothing.

        Raises InvalidArgument, InvalidIdempotencyKey and IdempotencyMismatch. A replay shows no secret.
        """
        check_new_account(new)
        credential = _Credential.generate() if new.with_key else None
        now_ms = self._clock.now_ms()
        request = fingerprint(
            new.name, new.plan, str(new.sending_enabled), str(new.initial_credits), str(new.with_key)
        )
        once = Once("", "account.create", check_key(new.idempotency_key), request)

        async def work(tx: Transaction) -> CreatedAccount:
            earlier = await once.earlier(tx)
            if earlier is not None:
                found = await _account(tx, earlier)
                key = await store.get_first_key(tx, found) if new.with_key else None
                return CreatedAccount(found, key, secret=None, replayed=True)
            account = _opened(new, now_ms)
            await store.insert_account(tx, account)
            await self._ledger.open(
                tx, account.id, initial_credits=new.initial_credits, actor=actor, at_ms=now_ms
            )
            issued = None if credential is None else await _issue(tx, account.id, "", credential, now_ms)
            await once.remember(tx, account.id, now_ms)
            if issued is None:
                return CreatedAccount(account, None, None)
            return CreatedAccount(account, issued.key, issued.secret)

        return await self._change(work)

    async def get(self, account_id: str) -> Account:
        """Return one account; raises NotFound."""
        return await self._database.read(lambda tx: _account(tx, account_id))

    async def list_accounts(self, size: int, token: str) -> Page[Account]:
        """Return one page of all accounts, newest first; raises InvalidArgument and InvalidPageToken."""
        page = page_request(size, token, scope="accounts")
        rows = await self._database.read(lambda tx: store.list_accounts(tx, page))
        return page_of(rows, [row.id for row in rows], page)

    async def update(self, account_id: str, change: AccountChange) -> Account:
        """Change what is set and leave the rest; raises InvalidArgument and NotFound."""
        if change.name is not None:
            check_account_name(change.name)
        now_ms = self._clock.now_ms()

        async def work(tx: Transaction) -> Account:
            before = await _account(tx, account_id, hold=True)
            if change.applied_to(before) == before:
                return before
            await store.update_account(tx, account_id, change, at_ms=now_ms)
            if change.plan not in (None, before.plan):
                for follower in self._followers:
                    await follower.plan_changed(tx, account_id, at_ms=now_ms)
            return await _account(tx, account_id)

        return await self._change(work)

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Create an API key, or take over one that was made elsewhere.

        Raises InvalidArgument, InvalidIdempotencyKey, NotFound for the account, IdempotencyMismatch, and
        AlreadyExists for an imported key that any account has. A replay shows no secret.
        """
        check_new_key(new)
        if new.imported is None:
            credential, request = _Credential.generate(), fingerprint("own", new.name)
        else:
            credential = _Credential.take_over(new.imported)
            request = fingerprint("imported", new.name, new.imported.digest, new.imported.prefix)
        once = Once(new.account_id, "api_key.create", check_key(new.idempotency_key), request)
        now_ms = self._clock.now_ms()

        async def work(tx: Transaction) -> IssuedKey:
            await _account(tx, new.account_id)
            earlier = await once.earlier(tx)
            if earlier is not None:
                return IssuedKey(await _api_key(tx, earlier), secret=None, replayed=True)
            issued = await _issue(tx, new.account_id, new.name, credential, now_ms)
            await once.remember(tx, issued.key.id, now_ms)
            return issued

        return await self._change(work)

    async def list_keys(self, account_id: str, size: int, token: str) -> Page[ApiKey]:
        """Return one page of an account's keys, newest first.

        Raises NotFound for the account, InvalidArgument and InvalidPageToken.
        """
        page = page_request(size, token, scope=f"api_keys:{account_id}")

        async def work(tx: Transaction) -> list[ApiKey]:
            await _account(tx, account_id)
            return await store.list_keys(tx, account_id, page)

        rows = await self._database.read(work)
        return page_of(rows, [row.id for row in rows], page)

    async def set_key_enabled(self, key_id: str, *, enabled: bool) -> ApiKey:
        """Enable or disable a key; one that is so already is answered as it is. Raises NotFound."""

        async def work(tx: Transaction) -> ApiKey:
            await _api_key(tx, key_id)
            await store.set_key_enabled(tx, key_id, enabled=enabled)
            return await _api_key(tx, key_id)

        return await self._change(work)

    async def rotate_key(
        self, key_id: str, *, overlap_ms: int | None = None, idempotency_key: str | None = None
    ) -> RotatedKey:
        """Create a successor with the key's name, and let the key end after an overlap: 24 hours where it is None.

        A key that has an earlier end keeps it, and a disabled key stays disabled; its successor is enabled, for
        that is how a leaked key is replaced. Raises InvalidArgument, InvalidIdempotencyKey, NotFound and
        IdempotencyMismatch. A replay shows no secret.
        """
        overlap_ms = check_overlap(overlap_ms)
        idempotency_key = check_key(idempotency_key)
        credential = _Credential.generate()
        now_ms = self._clock.now_ms()

        async def work(tx: Transaction) -> RotatedKey:
            old = await _api_key(tx, key_id)
            request = fingerprint(key_id, str(overlap_ms))
            once = Once(old.account_id, "api_key.rotate", idempotency_key, request)
            earlier = await once.earlier(tx)
            if earlier is not None:
                return RotatedKey(IssuedKey(await _api_key(tx, earlier), None, replayed=True), old)
            end_ms = end_of_replaced(old, now_ms=now_ms, overlap_ms=overlap_ms)
            await store.set_key_end(tx, key_id, expires_at_ms=end_ms)
            issued = await _issue(tx, old.account_id, old.name, credential, now_ms)
            await once.remember(tx, issued.key.id, now_ms)
            return RotatedKey(issued, replace(old, expires_at_ms=end_ms))

        return await self._change(work)

    async def delete_key(self, key_id: str) -> None:
        """Forget a key: from then on it is unknown. Raises NotFound."""

        async def work(tx: Transaction) -> None:
            if not is_id(key_id) or not await store.delete_key(tx, key_id):
                raise NotFound("api key")

        await self._change(work)

    async def _change(self, work: Work[T]) -> T:
        try:
            done = await self._database.write(work)
        except IntegrityViolation:
            # Where the database takes several writers at once, another may just have used the same digest or the
            # same idempotency key. The work looks for both first, so a second run finds what the other left.
            done = await self._database.write(work)
        self._changed()
        return done


@dataclass(frozen=True, slots=True)
class _Credential:
    """What is stored of a key, and the key itself where it was made here."""

    digest: str
    prefix: str
    secret: Secret | None

    @staticmethod
    def generate() -> "_Credential":
        key = generate_key()
        return _Credential(digest_key(key), display_prefix(key), Secret(key))

    @staticmethod
    def take_over(imported: ImportedKey) -> "_Credential":
        return _Credential(imported.digest, imported.prefix, None)


def _opened(new: NewAccount, now_ms: int) -> Account:
    return Account(
        id=new_id(),
        name=new.name,
        plan=new.plan,
        sending_enabled=new.sending_enabled,
        suspended=False,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )


async def _issue(
    tx: Transaction, account_id: str, name: str, credential: _Credential, at_ms: int
) -> IssuedKey:
    if await store.key_access(tx, credential.digest) is not None:
        # Whose it is stays unsaid.
        raise AlreadyExists("This API key is known already.", metadata={"resource": "api key"})
    key = ApiKey(
        id=new_id(),
        account_id=account_id,
        name=name,
        prefix=credential.prefix,
        enabled=True,
        imported=credential.secret is None,
        created_at_ms=at_ms,
    )
    await store.insert_key(tx, key, credential.digest)
    return IssuedKey(key, credential.secret)


async def _account(tx: Transaction, account_id: str, *, hold: bool = False) -> Account:
    look = store.hold_account if hold else store.get_account
    found = await look(tx, account_id) if is_id(account_id) else None
    if found is None:
        raise NotFound("account")
    return found


async def _api_key(tx: Transaction, key_id: str) -> ApiKey:
    found = await store.get_key(tx, key_id) if is_id(key_id) else None
    if found is None:
        raise NotFound("api key")
    return found
