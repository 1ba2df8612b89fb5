"""Statements as PostgreSQL plans them: which partitions each of them touches."""

import contextlib
import contextvars
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import event

from hydrasms_core.db.postgres import PostgresDatabase

_PARTITION = re.compile(r"[a-z_]+_p(\d+)")


# What SQLAlchemy has run in the transaction at hand: others run at the same time.
_noted: contextvars.ContextVar[list[tuple[str, Sequence[Any]]]] = contextvars.ContextVar("noted")


def _note(_connection: Any, _cursor: Any, text: str, parameters: Any, *_: Any) -> None:
    with contextlib.suppress(LookupError):
        _noted.get().append((text, parameters))


@dataclass(frozen=True)
class Planned:
    """A statement that ran, and the partitions that its plan reads or changes."""

    text: str
    partitions: frozenset[int]


class ExplainingDatabase(PostgresDatabase):
    """Keeps every statement that runs with the partitions that it touches.

    What an INSERT touches no plan says, so that the partitions that a transaction has locked when it ends are kept
    as well.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, partitioned=True)
        self.planned: list[Planned] = []
        self.locked: list[frozenset[int]] = []
        self.locked_writing: list[frozenset[int]] = []
        for pool in (self._writers, self._readers):
            event.listen(pool._engine.sync_engine, "before_cursor_execute", _note)

    async def _once(self, pool: Any, begin: str, work: Any, limit_s: float | None) -> Any:
        async def watched(tx: Any) -> Any:
            _noted.set([])
            tx._driver = _Explaining(tx._driver, self.planned)
            result = await work(tx)
            await tx.flush()
            driver = tx._driver._driver
            for text, parameters in _noted.get():
                self.planned.append(await _plan(driver, text, parameters))
            self.locked.append(await _locked(driver))
            if pool is self._writers:
                self.locked_writing.append(self.locked[-1])
            return result

        return await super()._once(pool, begin, watched, limit_s)


class _Explaining:
    """A connection that has every statement explained before it runs."""

    def __init__(self, driver: "asyncpg.Connection[Any]", planned: list[Planned]) -> None:
        self._driver = driver
        self._planned = planned

    async def fetch(self, text: str, *values: Any) -> Any:
        self._planned.append(await _plan(self._driver, text, values))
        return await self._driver.fetch(text, *values)

    async def execute(self, text: str, *values: Any) -> Any:
        self._planned.append(await _plan(self._driver, text, values))
        return await self._driver.execute(text, *values)


async def _plan(driver: "asyncpg.Connection[Any]", text: str, values: Iterable[Any]) -> Planned:
    # SQLAlchemy has taught the connection to read JSON.
    found = await driver.fetchval(f"EXPLAIN (FORMAT JSON) {text}", *values)
    return Planned(text, frozenset(_partitions(found)))


async def _locked(driver: "asyncpg.Connection[Any]") -> frozenset[int]:
    rows = await driver.fetch(
        "SELECT c.relname FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
        " WHERE l.pid = pg_backend_pid() AND c.relkind = 'r'"
    )
    return frozenset(int(m.group(1)) for row in rows if (m := _PARTITION.fullmatch(row["relname"])))


def _partitions(plan: Any) -> Iterable[int]:
    if isinstance(plan, list):
        for each in plan:
            yield from _partitions(each)
    elif isinstance(plan, dict):
        name = plan.get("Relation Name")
        if name is not None and (found := _PARTITION.fullmatch(name)):
            yield int(found.group(1))
        for value in plan.values():
            if isinstance(value, dict | list):
                yield from _partitions(value)
