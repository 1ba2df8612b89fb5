"""The worker: loops that hand messages to carriers, take their receipts and forget what need not be kept."""

from collections.abc import Callable

from hydrasms_app.compose.events import happenings_of
from hydrasms_app.compose.process import Process
from hydrasms_app.database import open_signal
from hydrasms_app.housekeeping import Housekeeping
from hydrasms_app.settings import Settings
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.db.transaction import Database
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.receipts import ReceiptIntake


async def start_worker(
    process: Process, settings: Settings, database: Database, *, alone: bool
) -> Callable[[], None]:
    """Start the loops and return what wakes the dispatcher.

    `alone` says that nobody else works on this database, so that claims which are still there are a dead
    predecessor's. When the process ends, nothing more is claimed and what carriers have is settled.
    """
    clock, metrics = process.clock, process.metrics
    simulator = SimulatedCarrier(database, clock)
    happenings = happenings_of(process)
    delivery = Dispatcher(
        database, LedgerCredits(), Carriers([simulator]), clock, metrics, happenings=happenings
    )
    if alone:
        await delivery.release_claims()
    receipts = ReceiptIntake(database, clock, metrics, happenings)
    process.keep_running("simulator", simulator.run(receipts))
    process.keep_running("housekeeping", Housekeeping(database, simulator, clock).run())
    process.keep_running("dispatcher", delivery.run(), drain=delivery.stop)
    signal = open_signal(settings)
    if signal is not None:
        process.keep_running("signal", signal.run_listening(delivery.wake))
    return delivery.wake
