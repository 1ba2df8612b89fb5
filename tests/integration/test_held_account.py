"""Another process holds an account for longer than a send waits: it says so, and nothing has happened."""

import asyncpg
import pytest

from tests.support.databases import ON_POSTGRES

pytestmark = [pytest.mark.postgresql, ON_POSTGRES]


@pytest.fixture
async def holding(still_product):
    """A connection that may hold what the product needs."""
    connection = await asyncpg.connect(still_product.target)
    yield connection
    await connection.close()


async def hold(connection, account_id):
    await connection.execute("BEGIN")
    await connection.execute("SELECT balance FROM balances WHERE account_id = $1 FOR UPDATE", account_id)


async def test_a_send_with_a_key_is_said_to_be_in_progress_and_works_later(still_product, holding):
    account = await still_product.account(credits=5)
    await hold(holding, account.id)
    waiting = await still_product.post(account, headers={"Idempotency-Key": "once"})
    assert (waiting.status_code, waiting.json()["code"]) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert waiting.headers["retry-after"] == "1"
    await holding.execute("ROLLBACK")
    sent = await still_product.post(account, headers={"Idempotency-Key": "once"})
    assert (sent.status_code, sent.headers.get("idempotent-replayed")) == (200, None)
    assert await still_product.balance(account.id) == 4


async def test_a_send_without_a_key_is_unavailable(still_product, holding):
    account = await still_product.account(credits=5)
    await hold(holding, account.id)
    refused = await still_product.post(account)
    assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
    assert refused.headers["retry-after"] == "1"
    await holding.execute("ROLLBACK")
    assert await still_product.messages(account.id) == []
    assert (await still_product.post(account)).status_code == 200
