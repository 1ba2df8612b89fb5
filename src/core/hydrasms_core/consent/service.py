"""Who wants no more messages of whom, by keyed hashes of numbers.

It implements `messaging.ports.Consent` and `inbound.ports.Consent`.

A STOP and a worker that hands a message to the same phone both hold that phone's row of `last_senders`, so that
one of them comes first: what is handed on after a STOP was taken in knows of it. A phone that has no such row has
got nothing yet, and so there is nothing that a STOP could be for.
"""

from collections.abc import Collection, Mapping, Sequence

from hydrasms_base.sealing import Sealer
from hydrasms_core.consent import store
from hydrasms_core.consent.model import Wish
from hydrasms_core.consent.store import Key
from hydrasms_core.db.transaction import Transaction


class ConsentBook:
    """Keeps opt-outs, and whose message went to which phone last; every method works in the caller's transaction."""

    def __init__(self, sealer: Sealer) -> None:
        self._hash = sealer.hash_number

    async def refusing(self, tx: Transaction, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of the (account id, E.164 number) pairs where the phone wants none of the account."""
        keys = {(account_id, self._hash(number)): (account_id, number) for account_id, number in pairs}
        return {keys[key] for key in await store.find_opt_outs(tx, keys)} if keys else set()

    async def hold(self, tx: Transaction, numbers: Collection[str]) -> None:
        """Let nobody change what these phones want until the transaction ends."""
        await store.hold_last_senders(tx, {self._hash(number) for number in numbers})

    async def sent(self, tx: Transaction, sent: Sequence[tuple[str, str]], *, at_ms: int) -> None:
        """Remember of (account id, E.164 number) pairs, in order, that the account's message goes to the phone."""
        senders = {self._hash(number): account_id for account_id, number in sent}
        if senders:
            await store.put_last_senders(tx, senders, at_ms=at_ms)

    async def last_senders(
        self, tx: Transaction, numbers: Collection[str], *, hold: bool
    ) -> Mapping[str, str]:
        """Return the account whose message went last to each of the phones, where there was one.

        With `hold` nobody else changes what the phones want until the transaction ends.
        """
        hashes = {self._hash(number): number for number in numbers}
        if not hashes:
            return {}
        find = store.hold_last_senders if hold else store.find_last_senders
        return {hashes[number]: account_id for number, account_id in (await find(tx, hashes)).items()}

    async def follow(self, tx: Transaction, wishes: Sequence[Wish], *, at_ms: int) -> list[bool]:
        """Do as phones wish, in order, and tell of each wish whether it changed anything."""
        changed = [False] * len(wishes)
        waiting = [((wish.account_id, self._hash(wish.number)), wish.wants) for wish in wishes]
        left = list(range(len(wishes)))
        while left:
            # One wish a phone and account at once: the next one is about what that has left.
            at_once: dict[Key, int] = {}
            for place in left:
                at_once.setdefault(waiting[place][0], place)
            ends = [key for key, place in at_once.items() if not waiting[place][1]]
            begins = [key for key, place in at_once.items() if waiting[place][1]]
            moved = await store.add_opt_outs(tx, ends, at_ms=at_ms) if ends else set()
            moved |= await store.remove_opt_outs(tx, begins) if begins else set()
            for key, place in at_once.items():
                changed[place] = key in moved
            done = set(at_once.values())
            left = [place for place in left if place not in done]
        return changed
