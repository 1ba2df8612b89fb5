"""What a deliverer has in hand keeps to its limits, whatever order things happen in."""

import random
from collections import Counter

import pytest

from hydrasms_core.settings import WebhookSettings
from hydrasms_core.webhooks.delivery_store import Due, Target
from hydrasms_core.webhooks.handover import Held
from hydrasms_core.webhooks.in_hand import InHand
from hydrasms_core.webhooks.model import DeliveryType
from hydrasms_core.webhooks.sharing import Queue

SETTINGS = WebhookSettings(max_in_flight=6, max_per_receiver=3, max_failing=2)
STEPS = 400


def held_of(queue, number):
    target = Target("https://x.example", queue.retries, "word", "", "", "", None, False, queue.failing)
    due = Due(
        "a", str(number), False, queue.endpoint_id, DeliveryType.INBOUND, "m", "", 0, 0, 0, target, None
    )
    return Held("claim", due, target, 1, 0.0)


class Walk:
    """Claims, begins and ends at random, and checks the limits after every step."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.in_hand = InHand(SETTINGS)
        self.queues = [
            Queue("a", str(n), self.chance.random() < 0.3, self.chance.random() < 0.7) for n in range(8)
        ]
        self.waiting, self.begun, self.unsettled = [], [], []
        self.number = self.ahead = 0

    def claim(self):
        shares = self.in_hand.shares(self.chance.sample(self.queues, self.chance.randint(0, 8)))
        claimed = []
        for queue, share in shares.items():
            # What was seen may have been taken by others.
            for _ in range(self.chance.randint(0, share)):
                self.number += 1
                claimed.append(held_of(queue, self.number))
        self.in_hand.take(claimed)
        self.waiting += claimed

    def begin_all(self):
        while held := self.in_hand.begin():
            self.waiting.remove(held)
            self.begun.append(held)
        self.ahead += len(self.waiting)
        # What must not wait has begun.
        assert all(held.target.retries and not held.target.failing for held in self.waiting)

    def answer(self):
        if self.begun:
            held = self.begun.pop(self.chance.randrange(len(self.begun)))
            self.in_hand.leave_receiver(held)
            self.unsettled.append(held)

    def settle(self):
        if self.unsettled:
            self.in_hand.let_go(self.unsettled.pop())

    def fail(self):
        if self.begun:
            held = self.begun.pop()
            withdrawn = self.in_hand.withdraw(held.due.endpoint_id)
            assert {each.due.endpoint_id for each in withdrawn} <= {held.due.endpoint_id}
            for each in [held, *withdrawn]:
                self.in_hand.let_go(each)
            self.waiting = [each for each in self.waiting if each not in withdrawn]
            assert held.due.endpoint_id not in {each.due.endpoint_id for each in self.waiting}

    def step(self):
        self.chance.choice([self.claim, self.answer, self.answer, self.settle, self.fail])()
        self.begin_all()
        assert sorted(self.in_hand.ids) == sorted(
            each.due.id for each in [*self.waiting, *self.begun, *self.unsettled]
        )
        most = SETTINGS.max_in_flight
        assert len(self.begun) <= most
        assert len(self.waiting) <= most
        assert len(self.begun) + len(self.unsettled) <= 2 * most
        not_over = self.begun + self.waiting
        assert sum(held.target.failing for held in not_over) <= SETTINGS.max_failing
        failing = {queue.endpoint_id for queue in self.queues if queue.failing}
        for endpoint_id, number in Counter(held.due.endpoint_id for held in not_over).items():
            assert number <= (1 if endpoint_id in failing else SETTINGS.max_per_receiver)


@pytest.mark.parametrize("seed", range(20))
def test_no_limit_is_passed_whatever_comes_when(seed):
    walk = Walk(seed)
    for _ in range(STEPS):
        walk.step()
    # It was no walk in which nothing happened.
    assert walk.number > STEPS / 5
    assert walk.ahead


def test_as_many_are_claimed_ahead_as_have_ended_since_the_last_claim():
    in_hand = InHand(SETTINGS)
    queues = [Queue("a", str(n), False, True) for n in range(8)]

    def claim():
        shares = in_hand.shares(queues)
        in_hand.take(
            [
                held_of(queue, f"{queue} {n} {len(in_hand.ids)}")
                for queue in shares
                for n in range(shares[queue])
            ]
        )
        return sum(shares.values())

    assert claim() == 6
    begun = [in_hand.begin() for _ in range(6)]
    assert in_hand.begin() is None
    assert claim() == 0
    for held in begun[:2]:
        assert held is not None
        in_hand.let_go(held)
    # Two places are free, and as many will be by the time that this claim is made.
    assert claim() == 4
    assert in_hand.begin()
    assert in_hand.begin()
    assert in_hand.begin() is None
    assert claim() == 0
    assert len(in_hand.withdraw()) == 2
