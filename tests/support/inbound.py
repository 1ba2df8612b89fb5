"""What tests of receiving share: shortcodes in a dictionary, and ports that record in the database.

What they record stands in tables, so that what a transaction did that was undone is not there either.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_core.carriers.base import InboundText
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.inbound.intake import Intake
from hydrasms_core.inbound.ports import Holder, Push
from hydrasms_core.inbound.service import Inbound
from hydrasms_core.inbound.tables import inbound_references, replies
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.messaging.tables import inbound_messages
from hydrasms_core.settings import InboundSettings
from tests.support.consent import consent_book
from tests.support.delivery import rows_of
from tests.support.messaging import FakeSendingAccounts

ALICE, BOB = (f"018f0000-0000-7000-8000-00000000000{number}" for number in (1, 2))
SENDER = "+447700900123"
ORDER = Holder(ALICE, "018f0000-0000-7000-8000-0000000000aa", active=True)
LAPSED = Holder(BOB, "018f0000-0000-7000-8000-0000000000bb", active=False)


class FakeShortcodes:
    """Who holds what, in a dictionary that a test may change."""

    def __init__(self) -> None:
        self.held: dict[str, Holder] = {"order": ORDER, "lapsed": LAPSED}

    async def holders(self, tx: Transaction, words: Collection[str]) -> Mapping[str, Holder]:
        return {word: self.held[word] for word in words if word in self.held}


class RecordedPushes:
    """Keeps what is to be pushed."""

    async def enqueue(self, tx: Transaction, pushes: Sequence[Push], *, at_ms: int) -> None:
        for push in pushes:
            await tx.execute(
                sa.text("INSERT INTO recorded_pushes VALUES (:a, :e, :m)"),
                {"a": push.account_id, "e": push.endpoint_id, "m": push.inbound_message_id},
            )


class RecordedHappenings:
    """Keeps what happened."""

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        for happening in happenings:
            await tx.execute(
                sa.text("INSERT INTO recorded_happenings VALUES (:a, :t, :s)"),
                {"a": happening.account_id, "t": happening.type, "s": happening.subject_id},
            )


async def make_records(database: Database) -> None:
    """Make the tables in which ports record."""
    for table, columns in (
        ("recorded_pushes", "account_id TEXT, endpoint_id TEXT, message_id TEXT"),
        ("recorded_happenings", "account_id TEXT, type TEXT, subject_id TEXT"),
    ):
        await database.write(
            lambda tx, table=table, columns=columns: tx.execute(sa.text(f"CREATE TABLE {table} ({columns})"))  # type: ignore[misc]
        )


class Reception:
    """One process that takes texts in, over a database that outlives it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        shortcodes: FakeShortcodes | None = None,
        lanes: Any = None,
        **settings: Any,
    ) -> None:
        self.database = database
        self.clock = clock
        self.shortcodes = shortcodes or FakeShortcodes()
        self.consent = consent_book()
        self.accounts = FakeSendingAccounts()
        self.wakes = 0
        self.settings = InboundSettings(**settings)
        self.inbound = Inbound(
            database,
            self.accounts,
            self.shortcodes,
            self.consent,
            RecordedPushes(),
            RecordedHappenings(),
            clock,
            self.settings,
            self._wake,
            lanes,
        )
        self.intake = Intake(
            self.shortcodes,
            self.consent,
            RecordedPushes(),
            RecordedHappenings(),
            replies_per_hour=self.settings.replies_per_hour,
            own_number=None,
        )

    def _wake(self) -> None:
        self.wakes += 1

    async def receive(self, text: str, *, sender: str = SENDER, reference: str = "", at_ms: int = 0) -> Any:
        return await self.inbound.receive(InboundText("told", reference, sender, text, at_ms))

    async def sent(self, account_id: str, number: str = SENDER) -> None:
        """Let an account's message go to a phone."""
        await self.database.write(
            lambda tx: self.consent.sent(tx, [(account_id, number)], at_ms=self.clock.now_ms())
        )

    async def refuses(self, account_id: str, number: str = SENDER) -> bool:
        """Tell whether a phone has opted out of an account."""
        return bool(await self.database.read(lambda tx: self.consent.refusing(tx, [(account_id, number)])))

    async def messages(self) -> list[dict[str, Any]]:
        return await rows_of(self.database, inbound_messages)

    async def references(self) -> list[dict[str, Any]]:
        return await rows_of(self.database, inbound_references)

    async def replies(self) -> list[dict[str, Any]]:
        return await rows_of(self.database, replies)

    async def recorded(self, what: str) -> list[tuple[Any, ...]]:
        """Return what a port recorded: pushes or happenings."""
        found = await self.database.read(
            lambda tx: tx.execute(sa.text(f"SELECT * FROM recorded_{what} ORDER BY 3"))
        )
        return [tuple(row) for row in found]


def text_of(text: str, *, reference: str = "", sender: str = SENDER) -> InboundText:
    """Return a text as a carrier brings it."""
    return InboundText("told", reference or new_id(), sender, text, 0)
