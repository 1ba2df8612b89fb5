"""One run of the PostgreSQL benchmark, in a process of its own.

`python -m bench.postgres_run WAY CALLERS SECONDS ACCOUNTS URL`, on a database with the current schema.
"""

import contextlib
import dataclasses
import json
import sys

import asyncpg
import uvloop

from bench.hammer import Call, hammer
from bench.sample import Sample
from bench.store_run import open_accounts, sends_of
from hydrasms_base.ids import new_id
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.postgres import PostgresDatabase
from hydrasms_core.messaging.accept import Acceptance, Send
from hydrasms_core.messaging.model import Accepted, Message

_CONNECTIONS = 16


class NaiveStore:
    """Accepts sends, each in a transaction of its own over asyncpg: the way one would without a writer."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def send(self, message: Message) -> bool:
        """Debit and store one message, durably; False where the balance is too low."""
        async with self._pool.acquire() as connection, connection.transaction():
            paid = await connection.fetchval(
                "UPDATE balances SET balance = balance - $2, updated_at_ms = $3"
                " WHERE account_id = $1 AND balance >= $2 RETURNING balance",
                message.account_id,
                message.credits,
                message.created_at_ms,
            )
            if paid is None:
                return False
            await connection.execute(
                "INSERT INTO transfers (account_id, id, debit_account, credit_account, amount, kind, message_id,"
                " actor, created_at_ms) VALUES ($1, $2, $1, 'spent', $3, 'spend', $4, 'account', $5)",
                message.account_id,
                new_id(),
                message.credits,
                message.id,
                message.created_at_ms,
            )
            number = message.recipient
            await connection.execute(
                "INSERT INTO messages (account_id, id, sender, recipient, country_iso2, country_iso3, calling_code,"
                " content, status, credits, encoding, segments, created_at_ms, updated_at_ms, expires_at_ms)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $9, $10, $11, $12, $12, $13)",
                message.account_id,
                message.id,
                message.sender,
                number.e164,
                number.country_iso2,
                number.country_iso3,
                number.calling_code,
                message.content,
                message.credits,
                message.encoding.value,
                message.segments,
                message.created_at_ms,
                message.expires_at_ms,
            )
            await connection.execute(
                "INSERT INTO outbox (account_id, message_id, step, due_at_ms) VALUES ($1, $2, 'submit', $3)",
                message.account_id,
                message.id,
                message.created_at_ms,
            )
        return True


async def run(way: str, callers: int, seconds: float, accounts: int, url: str) -> Sample:
    """Measure one way of accepting sends."""
    async with contextlib.AsyncExitStack() as stack:
        database = PostgresDatabase(url)
        stack.push_async_callback(database.close)
        make = sends_of((await open_accounts(database))[:accounts])
        acceptance = Acceptance(LedgerCredits(), ConsentBook(Sealer(Secret("a key of the benchmark"))))
        call: Call
        if way == "group":
            writer: GroupCommit[Send, Accepted] = GroupCommit(database, acceptance.commit, acceptance.landed)

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
            pool = await stack.enter_async_context(asyncpg.create_pool(url, max_size=_CONNECTIONS))
            store = NaiveStore(pool)

            async def naively(_: int) -> bool:
                return await store.send(make().message)

            call = naively
        return await hammer(call, callers=callers, seconds=seconds)


def main() -> None:
    """Measure what the command line names and print the sample as JSON."""
    way, callers, seconds, accounts, url = sys.argv[1:]
    sample = uvloop.run(run(way, int(callers), float(seconds), int(accounts), url))
    print(json.dumps(dataclasses.asdict(sample)))


if __name__ == "__main__":
    main()
