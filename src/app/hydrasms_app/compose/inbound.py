"""Receiving texts, for whoever takes them in: the core from its callers, the worker from its carriers."""

from collections.abc import Callable

from hydrasms_app.compose.events import happenings_of
from hydrasms_app.compose.process import Process
from hydrasms_app.database import lanes_of
from hydrasms_app.settings import Settings
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.transaction import Database
from hydrasms_core.inbound.service import Inbound
from hydrasms_core.settings import InboundSettings
from hydrasms_core.shortcodes import store as shortcodes_store
from hydrasms_core.webhooks.pushes import PushQueue


def inbound_of(
    process: Process,
    settings: Settings,
    database: Database,
    consent: ConsentBook,
    wake: Callable[[], None],
) -> Inbound:
    """Return what takes texts in, and calls `wake` when workers have something to do about one.

    When the process ends, the texts that were taken in are committed and answered.
    """
    inbound = Inbound(
        database,
        AccessDirectory(database, accounts_store, process.clock),
        shortcodes_store,
        consent,
        PushQueue(),
        happenings_of(process, wake),
        process.clock,
        InboundSettings(sent_from=settings.sent_from, replies_per_hour=settings.replies_per_hour),
        wake,
        lanes_of(settings, database),
    )
    process.stack.push_async_callback(inbound.drain)
    return inbound
