"""The worker: loops that hand messages to carriers, take their receipts, push to webhooks and forget what need not be
kept.
"""

from collections.abc import Callable, Mapping, Sequence

from hydrasms_app.compose.process import Process
from hydrasms_app.database import lanes_of, open_signal
from hydrasms_app.housekeeping import Housekeeping
from hydrasms_app.sealing import sealer_of
from hydrasms_app.settings import Settings
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.webhooks.deliverer import Deliverer
from hydrasms_core.webhooks.ports import Poster, Refusal, Unanswered
from hydrasms_core.webhooks.sealed import EndpointSecrets


async def start_worker(
    process: Process, settings: Settings, database: Database, *, alone: bool
) -> Callable[[], None]:
    """Start the loops and return what wakes those that hand things on.

    `alone` says that nobody else works on this database, so that claims which are still there are a dead
    predecessor's. When the process ends, nothing more is claimed and what carriers have is settled.
    """
    clock, metrics = process.clock, process.metrics
    secrets = EndpointSecrets(await sealer_of(settings, database))
    simulator = SimulatedCarrier(database, clock)
    delivery = Dispatcher(database, LedgerCredits(), Carriers([simulator]), clock, metrics)
    pushing = Deliverer(
        database,
        webhook_poster(settings),
        secrets,
        _Unfollowed(),
        clock,
        metrics,
        lanes=lanes_of(settings, database),
    )
    if alone:
        await delivery.release_claims()
        await pushing.release_claims()
    receipts = ReceiptIntake(database, clock, metrics)
    process.keep_running("simulator", simulator.run(receipts))
    housekeeping = Housekeeping(
        database, simulator, clock, deliveries_kept_days=settings.webhook_deliveries_kept_days
    )
    process.keep_running("housekeeping", housekeeping.run())
    process.keep_running("deliverer", pushing.run(), drain=pushing.stop)
    process.keep_running("dispatcher", delivery.run(), drain=delivery.stop)

    def wake() -> None:
        delivery.wake()
        pushing.wake()

    signal = open_signal(settings)
    if signal is not None:
        process.keep_running("signal", signal.run_listening(wake))
    return wake


def webhook_poster(settings: Settings) -> Poster:
    """Return what posts to customers' servers."""
    return _NoConnector()


class _NoConnector:
    """Reaches nobody, so that every push waits for its next attempt."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Unanswered:
        return Unanswered(Refusal.CONNECT, "This server cannot post to webhooks yet.", 0.0)


class _Unfollowed:
    """Where what happens is told while nobody follows it."""

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        return None
