"""The worker: loops that hand messages to carriers, take their receipts and forget what need not be kept."""

from hydrasms_app.compose.events import happenings_of
from hydrasms_app.compose.inbound import inbound_of
from hydrasms_app.compose.process import Process
from hydrasms_app.compose.wakes import Wakes
from hydrasms_app.database import open_signal
from hydrasms_app.housekeeping import Housekeeping
from hydrasms_app.sealing import sealer_of
from hydrasms_app.settings import Settings
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.transaction import Database
from hydrasms_core.inbound.reports import CarrierReports
from hydrasms_core.inbound.responder import Responder
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.settings import ReplySettings


async def start_worker(process: Process, settings: Settings, database: Database, *, alone: bool) -> Wakes:
    """Start the loops and return what wakes them.

    `alone` says that nobody else works on this database, so that claims which are still there are a dead
    predecessor's. When the process ends, nothing more is claimed and what carriers have is settled.
    """
    clock, metrics = process.clock, process.metrics
    simulator = SimulatedCarrier(database, clock)
    carriers = Carriers([simulator])
    consent = ConsentBook(await sealer_of(settings, database))
    happenings = happenings_of(process)
    delivery = Dispatcher(database, LedgerCredits(), consent, carriers, clock, metrics, happenings=happenings)
    responder = Responder(database, carriers, clock, metrics, ReplySettings(sent_from=settings.sent_from))
    if alone:
        await delivery.release_claims()
        await responder.release_claims()
    inbound = inbound_of(process, settings, database, consent, responder.wake)
    reports = CarrierReports(ReceiptIntake(database, clock, metrics, happenings), inbound)
    process.keep_running("simulator", simulator.run(reports))
    process.keep_running("housekeeping", Housekeeping(database, simulator, clock).run())
    process.keep_running("dispatcher", delivery.run(), drain=delivery.stop)
    process.keep_running("responder", responder.run(), drain=responder.stop)
    wakes = Wakes(messages=delivery.wake, texts=responder.wake)
    signal = open_signal(settings)
    if signal is not None:
        process.keep_running("signal", signal.run_listening(lambda: _wake_all(wakes)))
    return wakes


def _wake_all(wakes: Wakes) -> None:
    for wake in wakes:
        wake()
