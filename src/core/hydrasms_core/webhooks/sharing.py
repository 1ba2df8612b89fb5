"""Sharing out attempts: no receiver can keep others waiting, however slow it is or however much waits for it."""

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Queue(NamedTuple):
    """What waits for one endpoint; `failing` tells that its last attempt failed, `retries` that it wants another."""

    account_id: str
    endpoint_id: str
    failing: bool
    retries: bool


def share_out(
    queues: Sequence[Queue],
    busy: Mapping[str, int],
    *,
    free: int,
    free_for_failing: int,
    most: int,
) -> dict[Queue, int]:
    """Return how many more attempts may begin at each of the endpoints where something is due; 0 is left out.

    `busy` is how many are under way, by endpoint. There are `free` more at most in all, `free_for_failing` of them
    at endpoints that fail, and at an endpoint `most` at once, or one where it fails. They go round: one more always
    goes to an endpoint that has the fewest, and among those to the first in order.
    """
    shares: dict[Queue, int] = {}
    waiting = [(busy.get(queue.endpoint_id, 0), place) for place, queue in enumerate(queues)]
    heapq.heapify(waiting)
    while waiting and free > 0:
        begun, place = heapq.heappop(waiting)
        queue = queues[place]
        if begun >= (1 if queue.failing else most) or (queue.failing and free_for_failing <= 0):
            continue
        shares[queue] = shares.get(queue, 0) + 1
        free -= 1
        free_for_failing -= queue.failing
        heapq.heappush(waiting, (begun + 1, place))
    return shares
