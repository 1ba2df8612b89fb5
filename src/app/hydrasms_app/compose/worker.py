"""The worker: loops that hand messages to carriers, take their receipts and what phones send, reply, push to webhooks
and forget what need not be kept.
"""

from hydrasms_app.compose.events import happenings_of
from hydrasms_app.compose.inbound import inbound_of
from hydrasms_app.compose.process import Process
from hydrasms_app.compose.wakes import Wakes
from hydrasms_app.compose.webhooks import open_poster
from hydrasms_app.database import lanes_of, open_signal
from hydrasms_app.housekeeping import Housekeeping
from hydrasms_app.sealing import sealer_of
from hydrasms_app.settings import Settings
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.transaction import Database
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.inbound.reports import CarrierReports
from hydrasms_core.inbound.responder import Responder
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.settings import ReplySettings
from hydrasms_core.webhooks.deliverer import Deliverer
from hydrasms_core.webhooks.sealed import EndpointSecrets


async def start_worker(
    process: Process, settings: Settings, database: Database, *, alone: bool, all_in_one: bool
) -> Wakes:
    """Start the loops and return what wakes them.

    `alone` says that nobody else works on this database, so that claims which are still there are a dead
    predecessor's. When the process ends, nothing more is claimed, what carriers have is settled and attempts at
    webhooks are finished.
    """
    clock, metrics = process.clock, process.metrics
    sealer = await sealer_of(settings, database)
    simulator = SimulatedCarrier(database, clock)
    carriers, consent = Carriers([simulator]), ConsentBook(sealer)
    pushing = Deliverer(
        database,
        open_poster(process, settings, all_in_one=all_in_one),
        EndpointSecrets(sealer),
        RecordedHappenings(process.bell),
        clock,
        metrics,
        lanes=lanes_of(settings, database),
    )
    happenings = happenings_of(process, pushing.wake)
    delivery = Dispatcher(database, LedgerCredits(), consent, carriers, clock, metrics, happenings=happenings)
    responder = Responder(database, carriers, clock, metrics, ReplySettings(sent_from=settings.sent_from))
    if alone:
        await delivery.release_claims()
        await responder.release_claims()
        await pushing.release_claims()

    def texts() -> None:
        responder.wake()
        pushing.wake()

    wakes = Wakes(messages=delivery.wake, texts=texts)
    inbound = inbound_of(process, settings, database, consent, texts)
    reports = CarrierReports(ReceiptIntake(database, clock, metrics, happenings), inbound)
    housekeeping = Housekeeping(
        database, simulator, clock, deliveries_kept_days=settings.webhook_deliveries_kept_days
    )
    process.keep_running("simulator", simulator.run(reports))
    process.keep_running("housekeeping", housekeeping.run())
    process.keep_running("deliverer", pushing.run(), drain=pushing.stop)
    process.keep_running("dispatcher", delivery.run(), drain=delivery.stop)
    process.keep_running("responder", responder.run(), drain=responder.stop)
    signal = open_signal(settings)
    if signal is not None:
        process.keep_running("signal", signal.run_listening(lambda: _wake_all(wakes)))
    return wakes


def _wake_all(wakes: Wakes) -> None:
    for wake in wakes:
        wake()
