"""All SQL about consent. Numbers come here as keyed hashes alone.

Statements about opt-outs name the account. Whom a STOP is for is looked up by the number's hash, which no account
leads to; that table is not partitioned.
"""

from collections.abc import Collection, Mapping, Sequence

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction

Key = tuple[str, str]
"""An account and the hash of a number."""

_KEY = ("account_id", "number_hash")

_FIND_OPT_OUTS = SetStatement(
    "SELECT o.account_id, o.number_hash FROM {rows}"
    " JOIN opt_outs AS o ON o.account_id = {r.account_id} AND o.number_hash = r.number_hash WHERE {accounts:o}",
    _KEY,
)
_INSERT_OPT_OUTS = SetStatement(
    "INSERT INTO opt_outs (account_id, number_hash, created_at_ms)"
    " SELECT r.account_id, r.number_hash, :at_ms FROM {rows} WHERE true"
    " ON CONFLICT (account_id, number_hash) DO NOTHING RETURNING account_id, number_hash",
    _KEY,
)
_DELETE_OPT_OUTS = SetStatement(
    "DELETE FROM opt_outs {keyed:account_id,number_hash} AND {accounts:opt_outs}"
    " RETURNING opt_outs.account_id, opt_outs.number_hash",
    _KEY,
)
_HOLD_LAST_SENDERS = SetStatement(
    "SELECT l.number_hash, l.account_id FROM {rows} JOIN last_senders AS l ON l.number_hash = {r.number_hash}"
    " ORDER BY r.number_hash {lock:l}",
    ("number_hash",),
)
_FIND_LAST_SENDERS = SetStatement(
    "SELECT l.number_hash, l.account_id FROM {rows} JOIN last_senders AS l ON l.number_hash = {r.number_hash}",
    ("number_hash",),
)
_PUT_LAST_SENDERS = SetStatement(
    # Most messages go where the account's last one went: those rows need not be written again.
    "INSERT INTO last_senders (number_hash, account_id, since_ms)"
    " SELECT r.number_hash, r.account_id, :at_ms FROM {rows} WHERE true"
    " ON CONFLICT (number_hash) DO UPDATE SET account_id = excluded.account_id, since_ms = excluded.since_ms"
    " WHERE last_senders.account_id <> excluded.account_id",
    ("number_hash", "account_id"),
)


async def find_opt_outs(tx: Transaction, keys: Collection[Key]) -> set[Key]:
    """Return those of the keys that have opted out."""
    return {(row[0], row[1]) for row in await tx.execute_set(_FIND_OPT_OUTS, list(keys))}


async def add_opt_outs(tx: Transaction, keys: Sequence[Key], *, at_ms: int) -> set[Key]:
    """Store opt-outs and return those that were not there before; each key stands in `keys` once."""
    rows = await tx.execute_set(_INSERT_OPT_OUTS, sorted(keys), {"at_ms": at_ms})
    return {(row[0], row[1]) for row in rows}


async def remove_opt_outs(tx: Transaction, keys: Sequence[Key]) -> set[Key]:
    """Remove opt-outs and return those that were there."""
    rows = await tx.execute_set(_DELETE_OPT_OUTS, sorted(keys))
    return {(row[0], row[1]) for row in rows}


async def find_last_senders(tx: Transaction, hashes: Collection[str]) -> Mapping[str, str]:
    """Return the account whose message went last to each number, by the number's hash, where there was one."""
    rows = await tx.execute_set(_FIND_LAST_SENDERS, [(number,) for number in hashes])
    return {row[0]: row[1] for row in rows}


async def hold_last_senders(tx: Transaction, hashes: Collection[str]) -> Mapping[str, str]:
    """Return the same, and let nobody change them, or hold them as well, until the transaction ends."""
    rows = await tx.execute_set(_HOLD_LAST_SENDERS, [(number,) for number in sorted(hashes)])
    return {row[0]: row[1] for row in rows}


async def put_last_senders(tx: Transaction, senders: Mapping[str, str], *, at_ms: int) -> None:
    """Record whose message goes to each number, by its hash."""
    # In one order, so that two who record the same numbers do not wait for each other.
    await tx.defer_set(_PUT_LAST_SENDERS, sorted(senders.items()), {"at_ms": at_ms})
