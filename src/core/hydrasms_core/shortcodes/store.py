"""All SQL about shortcodes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.inbound.ports import Holder
from hydrasms_core.paging import PageRequest
from hydrasms_core.shortcodes.model import Shortcode, is_word
from hydrasms_core.shortcodes.tables import shortcodes

# In the order in which `_shortcode` reads them.
_SHORTCODE = (
    shortcodes.c.id,
    shortcodes.c.account_id,
    shortcodes.c.word,
    shortcodes.c.active,
    shortcodes.c.created_at_ms,
    shortcodes.c.updated_at_ms,
)

_CLAIM = sa.text(
    "INSERT INTO shortcodes (word, id, account_id, active, created_at_ms, updated_at_ms)"
    " VALUES (:word, :id, :account_id, 1, :at_ms, :at_ms) ON CONFLICT (word) DO NOTHING"
)

_FIND_HOLDERS = SetStatement(
    "SELECT s.word, s.account_id, s.id, s.active FROM {rows} JOIN shortcodes AS s ON s.word = {r.word}",
    ("word",),
    as_one=4,
)

_SET_ACTIVE = SetStatement(
    "UPDATE shortcodes SET active = r.active, updated_at_ms = :at_ms FROM {rows}"
    " WHERE shortcodes.account_id = {r.account_id} AND shortcodes.id = r.id",
    ("account_id", "id", "active"),
)


async def claim(tx: Transaction, shortcode_id: str, account_id: str, word: str, *, at_ms: int) -> bool:
    """Give a folded word to an account, active; tells whether it was free.

    Somebody else who has claimed it and not committed yet is waited for.
    """
    values = {"word": word, "id": shortcode_id, "account_id": account_id, "at_ms": at_ms}
    return (await tx.execute(_CLAIM, values)).rowcount > 0


async def find_id(tx: Transaction, account_id: str, shortcode_id: str) -> Shortcode | None:
    """Return the account's shortcode of an id, or None."""
    return await _one(tx, shortcodes.c.account_id == account_id, shortcodes.c.id == shortcode_id)


async def find_word(tx: Transaction, word: str) -> Shortcode | None:
    """Return the shortcode of a folded word, whoever holds it, or None."""
    return await _one(tx, shortcodes.c.word == word)


async def hold(tx: Transaction, account_id: str, shortcode_id: str) -> bool:
    """Keep everybody else from changing a shortcode until the transaction ends; tells whether there is one."""
    found = await tx.execute(
        sa.select(shortcodes.c.id)
        .where(shortcodes.c.account_id == account_id, shortcodes.c.id == shortcode_id)
        .with_for_update()
    )
    return found.one_or_none() is not None


async def list_page(tx: Transaction, account_id: str, page: PageRequest) -> list[Shortcode]:
    """Return up to one shortcode more than the page holds, newest first."""
    query = sa.select(*_SHORTCODE).where(shortcodes.c.account_id == account_id)
    if page.before is not None:
        query = query.where(shortcodes.c.id < page.before)
    found = await tx.execute(query.order_by(shortcodes.c.id.desc()).limit(page.size + 1))
    return [_shortcode(row) for row in found]


async def oldest_first(tx: Transaction, account_id: str) -> list[Shortcode]:
    """Return all shortcodes of an account, which are few, oldest first."""
    query = sa.select(*_SHORTCODE).where(shortcodes.c.account_id == account_id).order_by(shortcodes.c.id)
    return [_shortcode(row) for row in await tx.execute(query)]


async def touch(tx: Transaction, account_id: str, shortcode_id: str, *, at_ms: int) -> None:
    """Remember when a shortcode was changed."""
    await tx.execute(
        sa.update(shortcodes)
        .where(shortcodes.c.account_id == account_id, shortcodes.c.id == shortcode_id)
        .values(updated_at_ms=at_ms)
    )


async def set_active(tx: Transaction, account_id: str, active: Mapping[str, bool], *, at_ms: int) -> None:
    """Activate or deactivate an account's shortcodes, by id."""
    rows = [(account_id, shortcode_id, int(value)) for shortcode_id, value in active.items()]
    await tx.execute_set(_SET_ACTIVE, rows, {"at_ms": at_ms})


async def delete(tx: Transaction, account_id: str, shortcode_id: str) -> None:
    """Release a shortcode."""
    await tx.execute(
        sa.delete(shortcodes).where(shortcodes.c.account_id == account_id, shortcodes.c.id == shortcode_id)
    )


async def holders(tx: Transaction, words: Collection[str]) -> Mapping[str, Holder]:
    """Return who holds each of these folded words; words that nobody holds are left out."""
    # What phones send may be anything, also what no database could look for.
    rows = [(word,) for word in dict.fromkeys(words) if is_word(word)]
    if not rows:
        return {}
    return {
        word: Holder(account_id, shortcode_id, bool(active))
        for word, account_id, shortcode_id, active in await tx.execute_set(_FIND_HOLDERS, rows)
    }


async def _one(tx: Transaction, *conditions: "sa.ColumnElement[bool]") -> Shortcode | None:
    row = (await tx.execute(sa.select(*_SHORTCODE).where(*conditions))).one_or_none()
    return None if row is None else _shortcode(row)


def _shortcode(row: Sequence[Any]) -> Shortcode:
    return Shortcode(row[0], row[1], row[2], bool(row[3]), row[4], row[5])
