"""A statement finds its rows by their keys, however little there was in the tables when it was planned.

PostgreSQL keeps a plan until a table is next analyzed. What is cheapest for an empty table, reading it all, costs
a hundred times as much as the rest of a send once there are some thousand rows.
"""

import re

import asyncpg
import pytest

from hydrasms_billing import store as billing_store
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.carriers.simulator import store as simulator_store
from hydrasms_core.consent import store as consent_store
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.events import store as events_store
from hydrasms_core.inbound import store as inbound_store
from hydrasms_core.messaging import delivery_store, store
from hydrasms_core.shortcodes import store as shortcodes_store
from hydrasms_core.webhooks import delivery_store as pushes_store
from hydrasms_core.webhooks import queue_store
from hydrasms_core.webhooks import store as webhooks_store
from tests.support.databases import ON_POSTGRES

pytestmark = [pytest.mark.postgresql, ON_POSTGRES]

EXEMPT = {
    "what is due is found by its time": delivery_store._TAKE_DUE,
    "when more is due": delivery_store._NEXT_DUE,
    "an index of nothing but what waits for its reference": delivery_store._FIND_PARKED,
    "only reads, so that its connections plan it for its values": accounts_store._FIND_SENDERS,
    "only reads, and goes through an index from one queue's head to the next": pushes_store._FIND_QUEUES,
    "for SQLite alone, and of no table": inbound_store._HOW_MANY,
}
STORES = (
    store,
    delivery_store,
    accounts_store,
    simulator_store,
    billing_store,
    consent_store,
    events_store,
    inbound_store,
    shortcodes_store,
    pushes_store,
    queue_store,
    webhooks_store,
)
STATEMENTS = {
    f"{module.__name__.removeprefix('hydrasms_')}.{name}": statement
    for module in STORES
    for name, statement in vars(module).items()
    if isinstance(statement, SetStatement)
    and statement not in EXEMPT.values()
    and not statement.for_postgres([], dict.fromkeys(statement._names))[0].startswith("INSERT")
}


@pytest.fixture(params=["never analyzed", "analyzed while empty"])
async def planner(request, database, database_target):
    """Plans statements as a connection that writes does, on tables that are empty."""
    if request.param == "analyzed while empty":
        admin = await asyncpg.connect(database_target)
        await admin.execute("VACUUM ANALYZE")
        await admin.close()

    async def plan(text):
        values = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", text))))

        async def explained(tx):
            await tx._driver.execute(f"PREPARE planned AS {text}")
            found = await tx._driver.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE planned({values})")
            await tx._driver.execute("DEALLOCATE planned")
            return found

        return await database.write(explained)

    return plan


def careless(plan):
    """Return what a plan does other than looking single rows up by the first column of an index."""
    if isinstance(plan, list):
        return [each for part in plan for each in careless(part)]
    if not isinstance(plan, dict):
        return []
    kind, found = plan.get("Node Type"), []
    if "Relation Name" in plan and kind != "ModifyTable" and "ANY (" not in plan.get("Index Cond", ""):
        found.append(f"{kind} of {plan['Relation Name']}")
    if "Join Filter" in plan:
        found.append(f"{kind} on {plan['Join Filter']}")
    return found + [each for part in plan.values() for each in careless(part)]


def text_of(statement):
    return statement.for_postgres([], dict.fromkeys(statement._names))[0]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_rows_are_looked_up_by_their_keys(planner, name):
    assert careless(await planner(text_of(STATEMENTS[name]))) == []


@pytest.mark.parametrize("planner", ["analyzed while empty"], indirect=True)
@pytest.mark.parametrize("name", STATEMENTS)
async def test_control_plain_equality_reads_the_whole_table(planner, name):
    plain = re.sub(r"ANY\(ARRAY\[([a-z._]+)\]\)", r"\1", text_of(STATEMENTS[name]))
    assert plain != text_of(STATEMENTS[name])
    assert careless(await planner(plain)) != []
