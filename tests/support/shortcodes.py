"""What tests of shortcodes share: webhooks and events that only remember, and a process that keeps shortcodes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydrasms_base.clock import Clock
from hydrasms_base.secret import Secret
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.model import AccountChange, NewAccount, Plan
from hydrasms_core.accounts.plans import AccountPlans
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import InvalidWebhookUrl
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.shortcodes import store
from hydrasms_core.shortcodes.model import NewShortcode
from hydrasms_core.shortcodes.ports import Hook, MadeSecrets
from hydrasms_core.shortcodes.service import Shortcodes
from tests.support.accounts import FakeLedger

URL = "https://example.com/hook"
MADE_AUTH, MADE_SIGNING = "a-word-made-here", "whsec_made-here"


class FakeHooks:
    """Webhooks in a dictionary, by account and endpoint; `refused` is the URL that is none."""

    refused = "ftp://example.com"

    def __init__(self) -> None:
        self.hooks: dict[tuple[str, str], Hook] = {}
        self.auth: dict[tuple[str, str], str] = {}
        self.words: dict[tuple[str, str], str] = {}
        self.removed: list[tuple[str, str]] = []
        self.failure: Exception | None = None

    async def find(
        self, tx: Transaction, account_id: str, endpoint_ids: Collection[str]
    ) -> Mapping[str, Hook]:
        found = {each: self.hooks.get((account_id, each)) for each in endpoint_ids}
        return {each: hook for each, hook in found.items() if hook is not None}

    async def put(
        self,
        tx: Transaction,
        account_id: str,
        endpoint_id: str,
        *,
        word: str,
        url: str | None,
        auth: Secret | None,
        retries: bool | None,
        at_ms: int,
    ) -> MadeSecrets:
        if url == self.refused:
            raise InvalidWebhookUrl("That is no http or https URL.", field="webhook_url")
        key = account_id, endpoint_id
        before = self.hooks.get(key)
        if url == "":
            self.hooks.pop(key, None)
            return MadeSecrets(None, None)
        assert url is not None or before is not None, "no webhook to change"
        self.words[key] = word
        if auth is not None:
            self.auth[key] = auth.reveal()
        if before is None:
            assert url is not None
            self.hooks[key] = Hook(url, retries is not False, None, "")
            return MadeSecrets(None if auth is not None else Secret(MADE_AUTH), Secret(MADE_SIGNING))
        kept = before if url is None else before._replace(url=url, disabled_at_ms=None, disabled_reason="")
        self.hooks[key] = kept if retries is None else kept._replace(retries=retries)
        return MadeSecrets(None, None)

    async def remove(self, tx: Transaction, account_id: str, endpoint_id: str, *, at_ms: int) -> None:
        self.removed.append((account_id, endpoint_id))
        self.hooks.pop((account_id, endpoint_id), None)

    def disable(self, account_id: str, endpoint_id: str, at_ms: int, reason: str) -> None:
        """Disable a webhook, as the deliverer does."""
        key = account_id, endpoint_id
        self.hooks[key] = self.hooks[key]._replace(disabled_at_ms=at_ms, disabled_reason=reason)


class FakeHappenings:
    """Remembers what was recorded; fails where told to."""

    def __init__(self) -> None:
        self.recorded: list[Happening] = []
        self.failure: Exception | None = None

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        if self.failure is not None:
            raise self.failure
        self.recorded.extend(happenings)

    def told(self) -> list[tuple[str, str]]:
        """Return the types and the words of what was recorded, and forget it."""
        told = [(each.type.removeprefix("shortcode_"), each.subject_id) for each in self.recorded]
        self.recorded.clear()
        return told


class Keeper:
    """What one process has: accounts, their shortcodes, and fakes of what is told about them."""

    def __init__(self, database: Database, clock: Clock, hooks: Any = None) -> None:
        self.database = database
        self.hooks: Any = hooks or FakeHooks()
        self.happenings = FakeHappenings()
        directory = AccessDirectory(database, accounts_store, clock)
        self.shortcodes = Shortcodes(database, directory, AccountPlans(), self.hooks, self.happenings, clock)
        self.accounts = Accounts(
            database, FakeLedger(), clock, directory.recheck, followers=[self.shortcodes]
        )

    async def account(self, plan: Plan = Plan.PREMIUM) -> str:
        """Create an account; returns its id."""
        return (await self.accounts.create(NewAccount("Hep", plan), actor="service")).account.id

    async def claim(self, account_id: str, *words: str) -> list[str]:
        """Claim words for an account, one after the other; returns the ids."""
        made = [await self.shortcodes.create(NewShortcode(account_id, word)) for word in words]
        return [each.found.shortcode.id for each in made]

    async def change_plan(self, account_id: str, plan: Plan) -> None:
        await self.accounts.update(account_id, AccountChange(plan=plan))

    async def active(self, account_id: str) -> dict[str, bool]:
        """Return which of an account's words are active, oldest first."""
        rows = await self.database.read(lambda tx: store.oldest_first(tx, account_id))
        return {row.word: row.active for row in rows}
