"""One run of the store benchmark, in a process of its own: `python -m bench.store_run WAY CALLERS SECONDS FOLDER`."""

import dataclasses
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench.hammer import Call, hammer
from bench.sample import Sample
from bench.store_naive import NaiveStore
from bench.texts import random_recipient, random_text
from hydrasms_app import migrate
from hydrasms_base.clock import SystemClock
from hydrasms_base.ids import new_id
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.pricing import price
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.messaging.accept import Acceptance, Send
from hydrasms_core.messaging.model import Accepted, Message, Status
from hydrasms_core.messaging.numbering import parse_recipient
from hydrasms_core.messaging.text import measure

_ACCOUNTS = 1_000
_CREDITS = 1_000_000_000
_VALIDITY_MS = 48 * 3_600_000
_PREPARED = 512

_clock = SystemClock()


def sends_of(accounts: list[str]) -> Callable[[], Send]:
    """Return what makes a new send of a random account; numbers and texts are checked beforehand."""
    prepared = []
    for _ in range(_PREPARED):
        text = random_text()
        shape = measure(text)
        prepared.append((parse_recipient(random_recipient()), text, price(text), shape))

    def make() -> Send:
        recipient, text, credits, shape = random.choice(prepared)
        now_ms = _clock.now_ms()
        message = Message(
            id=new_id(),
            account_id=random.choice(accounts),
            sender="+2899682626",
            recipient=recipient,
            content=text,
            status=Status.QUEUED,
            credits=credits,
            encoding=shape.encoding,
            segments=shape.segments,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            expires_at_ms=now_ms + _VALIDITY_MS,
        )
        return Send(message, actor="account", key=None, fingerprint="")

    return make


async def open_accounts(database: Database) -> list[str]:
    """Give a thousand accounts their balances."""
    accounts = [new_id() for _ in range(_ACCOUNTS)]
    ledger = LedgerCredits()

    async def work(tx: Transaction) -> None:
        for account_id in accounts:
            await ledger.open(
                tx, account_id, initial_credits=_CREDITS, actor="service", at_ms=_clock.now_ms()
            )

    await database.write(work)
    return accounts


async def run(way: str, callers: int, seconds: float, path: Path) -> Sample:
    """Measure one way of accepting sends on a fresh database."""
    database = SqliteDatabase(path)
    make = sends_of(await open_accounts(database))
    acceptance = Acceptance(LedgerCredits(), ConsentBook(Sealer(Secret("a key of the benchmark"))))
    naive: NaiveStore | None = None
    call: Call
    if way == "group":
        writer: GroupCommit[Send, Accepted] = GroupCommit(database, acceptance.commit)

        async def grouped(_: int) -> bool:
            return isinstance(await writer.submit(make()), Accepted)

        call = grouped
    elif way == "single":

        async def single(_: int) -> bool:
            send = make()
            outcomes = await database.write(lambda tx: acceptance.commit(tx, [send]))
            return isinstance(outcomes[0], Accepted)

        call = single
    else:
        # "pool" is SQLAlchemy's own choice of how many connections; "one" spares them the fight for the lock.
        naive = NaiveStore(path, connections=1 if way == "one" else 15)
        store = naive

        async def naively(_: int) -> bool:
            return await store.send(make().message)

        call = naively
    try:
        return await hammer(call, callers=callers, seconds=seconds)
    finally:
        if naive is not None:
            await naive.close()
        await database.close()


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
