"""The pushes that a deliverer has in hand: to be begun, under way, or to be committed."""

import collections
from collections.abc import Collection, Iterable, Sequence

from hydrasms_core.settings import WebhookSettings
from hydrasms_core.webhooks.handover import Held
from hydrasms_core.webhooks.sharing import Queue, share_out


class InHand:
    """Keeps to the limits: so many attempts at once, in all and at each receiver.

    While attempts are under way others are claimed ahead, as many as have just ended, so that no attempt waits for a
    transaction; where receivers are slow that is none. Ahead is claimed only what a worker that dies may have
    claimed in vain: pushes that are tried again, at endpoints that work.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._all: dict[str, Held] = {}
        self._waiting: collections.deque[Held] = collections.deque()
        # Those that may still keep their receivers busy: what was answered 2xx waits for its commit alone, and the
        # next attempt need not wait for that. What failed does: it may be the end of its endpoint.
        self._begun: dict[str, Held] = {}
        self._ended = 0

    @property
    def ids(self) -> Collection[str]:
        """The deliveries in hand."""
        return self._all.keys()

    @property
    def held(self) -> Iterable[Held]:
        """All that is in hand."""
        return self._all.values()

    def shares(self, queues: Sequence[Queue]) -> dict[Queue, int]:
        """Return how much is to be claimed of each of these; to be asked once before each claim."""
        settings = self._settings
        not_over = [*self._begun.values(), *self._waiting]
        busy = collections.Counter(held.due.endpoint_id for held in not_over)
        free = self._room() - len(self._waiting)
        shares = share_out(
            queues,
            busy,
            free=free,
            free_for_failing=settings.max_failing - sum(held.target.failing for held in not_over),
            most=settings.max_per_receiver,
        )
        busy.update({queue.endpoint_id: share for queue, share in shares.items()})
        ahead = share_out(
            [queue for queue in queues if queue.retries and not queue.failing],
            busy,
            free=min(self._ended, settings.max_in_flight) + min(free, 0),
            free_for_failing=0,
            most=settings.max_per_receiver,
        )
        self._ended = 0
        for queue, share in ahead.items():
            shares[queue] = shares.get(queue, 0) + share
        return shares

    def _room(self) -> int:
        """Return how many more may be under way."""
        most = self._settings.max_in_flight
        # As many again may wait for their commits: no more is begun than can be settled.
        unsettled = len(self._all) - len(self._waiting) - len(self._begun)
        return most - len(self._begun) - max(0, unsettled - most)

    def take(self, claimed: Sequence[Held]) -> None:
        """Take in what a claim holds."""
        self._all.update((held.due.id, held) for held in claimed)
        # What was not claimed ahead finds its place free.
        self._waiting.extend(
            sorted(claimed, key=lambda held: held.target.retries and not held.target.failing)
        )

    def begin(self) -> Held | None:
        """Return the next to be attempted, where there is one and its turn has come."""
        if not self._waiting or self._room() <= 0:
            return None
        held = self._waiting.popleft()
        self._begun[held.due.id] = held
        return held

    def leave_receiver(self, held: Held) -> None:
        """Let others begin in the place of an attempt; again does no harm."""
        if self._begun.pop(held.due.id, None) is not None:
            self._ended += 1

    def withdraw(self, endpoint_id: str | None = None) -> list[Held]:
        """Return what is not begun, of one endpoint or of all, and let it not begin; it stays in hand."""
        waiting, self._waiting = self._waiting, collections.deque()
        withdrawn: list[Held] = []
        for held in waiting:
            (withdrawn if endpoint_id in (None, held.due.endpoint_id) else self._waiting).append(held)
        return withdrawn

    def let_go(self, held: Held) -> None:
        """Have a push in hand no more; again does no harm."""
        self.leave_receiver(held)
        self._all.pop(held.due.id, None)
