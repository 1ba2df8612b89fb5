"""One run of the inbound benchmark, in its own process: `python -m bench.inbound_run WAY CALLERS SECONDS FOLDER`."""

import dataclasses
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.hammer import Call, hammer
from bench.sample import Sample
from bench.store_run import open_accounts
from bench.texts import random_recipient, random_text
from hydrasms_app import migrate
from hydrasms_base.clock import SystemClock
from hydrasms_base.ids import new_id
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.carriers.base import InboundText
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.events.bell import Bell
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.inbound.model import Outcome
from hydrasms_core.inbound.ports import Push
from hydrasms_core.inbound.service import Inbound
from hydrasms_core.messaging.model import Draft
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.settings import InboundSettings, MessagingSettings
from hydrasms_core.shortcodes import store as shortcodes

_PREPARED = 512

_clock = SystemClock()


class AllMaySend:
    """Accounts of which nobody doubts anything, for a send asks a memory that answers at once."""

    async def require_account(self, account_id: str) -> None:
        """Doubt nothing."""

    async def require_sending(self, account_id: str) -> None:
        """Doubt nothing."""


class _Unhooked:
    """Webhooks that no shortcode has."""

    async def enqueue(self, tx: Transaction, pushes: Sequence[Push], *, at_ms: int) -> None:
        """Pass all over."""


async def give_shortcodes(database: Database, accounts: Sequence[str]) -> None:
    """Give every account a shortcode."""

    async def work(tx: Transaction) -> None:
        for number, account_id in enumerate(accounts):
            await shortcodes.claim(tx, new_id(), account_id, f"word{number}", at_ms=_clock.now_ms())

    await database.write(work)


async def run(way: str, callers: int, seconds: float, path: Path) -> Sample:
    """Measure taking texts in, or accepting sends, on a fresh database."""
    database = SqliteDatabase(path)
    accounts = await open_accounts(database)
    await give_shortcodes(database, accounts)
    consent = ConsentBook(Sealer(Secret("a key of the benchmark")))
    prepared = [(random_recipient(), random_text()) for _ in range(_PREPARED)]
    call: Call
    if way == "receive":
        inbound = Inbound(
            database,
            AllMaySend(),
            shortcodes,
            consent,
            _Unhooked(),
            RecordedHappenings(Bell()),
            _clock,
            InboundSettings(),
            _nothing,
        )

        async def receive(_: int) -> bool:
            sender, text = random.choice(prepared)
            content = f"word{random.randrange(len(accounts))} {text}"
            received = await inbound.receive(InboundText("bench", new_id(), sender, content, 0))
            return received.outcome is Outcome.ROUTED

        call = receive
    else:
        messaging = Messaging(
            database, LedgerCredits(), consent, AllMaySend(), _clock, MessagingSettings(), _nothing
        )

        async def send(_: int) -> bool:
            recipient, text = random.choice(prepared)
            draft = Draft(recipient, text)
            return not (await messaging.send(random.choice(accounts), draft, actor="account")).replayed

        call = send
    try:
        return await hammer(call, callers=callers, seconds=seconds)
    finally:
        await database.close()


def _nothing() -> None:
    """Wake nobody."""


def main() -> None:
    """Measure what the command line names and print the sample as JSON."""
    way, callers, seconds, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    path = folder / f"{way}-{callers}-{new_id()}.db"
    migrate.upgrade(path)
    sample = uvloop.run(run(way, callers, seconds, path))
    for file in folder.glob(f"{path.name}*"):
        file.unlink()
    print(json.dumps(dataclasses.asdict(sample)))


if __name__ == "__main__":
    main()
