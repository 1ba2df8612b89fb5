"""Consent for tests of messaging: phones in a set, and a sealer with a key of its own."""

from collections.abc import Collection, Sequence

from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.transaction import Transaction

SEALER = Sealer(Secret("a key of the tests"))


def consent_book() -> ConsentBook:
    """Return the real thing, for a database."""
    return ConsentBook(SEALER)


class FakeConsent:
    """Keeps in memory who has opted out of whom, and what was handed on."""

    def __init__(self) -> None:
        self.opted_out: set[tuple[str, str]] = set()
        self.handed: list[tuple[str, str]] = []
        self.held: list[set[str]] = []

    async def refusing(self, tx: Transaction, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        return self.opted_out & set(pairs)

    async def hold(self, tx: Transaction, numbers: Collection[str]) -> None:
        self.held.append(set(numbers))

    async def sent(self, tx: Transaction, sent: Sequence[tuple[str, str]], *, at_ms: int) -> None:
        self.handed += sent
