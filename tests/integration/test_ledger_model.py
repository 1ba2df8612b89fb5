"""The ledger against a model of it, through every order of events that hypothesis thinks of (bars, money, 2)."""

from collections.abc import Collection

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support import broken
from tests.support.ledger_machine import LedgerMachine, Parts

# What a run must have come to, or it has shown less than its name says.
REACHED = (
    "a replay",
    "IdempotencyMismatch",
    "InsufficientCredits",
    "NotCancellable",
    "rejected, refunded",
    "cancelled, refunded",
    "expired, refunded",
    "unknown",
    "an answer to nobody",
    "a receipt that moved",
    "a receipt too late or too often",
    "a receipt without a message",
)
REACHED_BY_MANY = (*REACHED, "delivered", "undelivered", "expired")


def explore(parts: Parts, examples: int, steps: int, *, shrink: bool = True) -> None:
    """Run the machine; raises AssertionError where product and model differ."""
    run_state_machine_as_test(
        lambda: LedgerMachine(parts),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def agree(parts: Parts, examples: int, steps: int, reached: Collection[str]) -> None:
    explore(parts, examples, steps)
    assert set(reached) <= parts.reached.keys(), set(reached) - parts.reached.keys()


@pytest.fixture
def build(database_kind, database_template, tmp_path):
    """Return a maker of what the machine is built of."""
    return lambda **parts: Parts(database_kind, database_template, tmp_path, **parts)


def test_the_ledger_and_its_model_agree_after_every_step(build):
    agree(build(), examples=30, steps=30, reached=REACHED)


@pytest.mark.faults
def test_the_ledger_and_its_model_agree_after_every_step_of_1000_long_runs(build):
    agree(build(), examples=1_000, steps=50, reached=REACHED_BY_MANY)


@pytest.mark.parametrize(
    "parts",
    [
        {"credits": broken.SpendsOnAnOldBalance},
        {"credits": broken.TakesTheRestForARefusedMessage},
        {"credits": broken.SpendsWithoutTransfers},
        {"credits": broken.RefundsWithoutTransfers},
        {"credits": broken.RefundsOneCredit},
        {"credits": broken.ForgetsRefunds},
        {"handover": broken.UnfencedHandover},
    ],
    ids=lambda parts: next(iter(parts.values())).__name__,
)
def test_the_model_catches_a_ledger_that_is_broken(build, parts):
    with pytest.raises(AssertionError):
        explore(build(**parts), examples=25, steps=30, shrink=False)
