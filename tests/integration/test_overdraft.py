"""No overdraft: many sends at once, just enough credits for some of them (bars, money, 1)."""

import asyncio
import threading

import pytest
import sqlalchemy as sa

from hydrasms_billing.tables import balances
from hydrasms_core.accounts.tables import accounts
from tests.support.gates import Gate

BALANCE = 100
RACERS = 400


async def race(product, trials: int) -> None:
    for _ in range(trials):
        account = await product.account(credits=BALANCE)
        answers = await asyncio.gather(
            *(
                product.http.post(
                    "/api/messages",
                    headers={"Authorization": account.key},
                    json={"recipient": "+447700900000", "content": f"racer {number}"},
                )
                for number in range(RACERS)
            )
        )
        statuses = [answer.status_code for answer in answers]
        assert statuses.count(200) == BALANCE
        assert statuses.count(400) == RACERS - BALANCE
        assert {a.json()["code"] for a in answers if a.status_code == 400} == {"INSUFFICIENT_CREDITS"}
        assert await product.balance(account.id) == 0
        assert len(await product.messages(account.id)) == BALANCE


async def test_exactly_as_many_sends_are_accepted_as_there_are_credits(product):
    await race(product, trials=2)


@pytest.mark.faults
async def test_exactly_as_many_sends_are_accepted_as_there_are_credits_20_times(product):
    await race(product, trials=20)
