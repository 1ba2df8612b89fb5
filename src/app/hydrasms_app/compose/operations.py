"""What operators see of a role that has no REST API: whether it lives, whether it is ready, what it counts."""

from hydrasms_app.compose.process import Process
from hydrasms_app.listening import port_taken
from hydrasms_app.settings import Settings
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.db.transaction import Database, StoreCorrupt
from hydrasms_core.errors import StoreUnavailable
from hydrasms_edge.app import create_operations_app
from hydrasms_edge.operations import Ready
from hydrasms_edge.server import HttpServer


class Readiness:
    """Whether a role can do its work: not before it is up, then as long as what it needs answers, not at its end."""

    def __init__(self) -> None:
        self._ready: Ready | None = None

    async def __call__(self) -> bool:
        """Tell whether it can at this moment."""
        return self._ready is not None and await self._ready()

    def begin(self, process: Process, ready: Ready) -> None:
        """Say that the role is up, and what tells from now on; the role ends with its process."""
        self._ready = ready
        process.stack.callback(self._end)

    def _end(self) -> None:
        self._ready = None


async def start_operations(process: Process, settings: Settings) -> Readiness:
    """Serve what operators ask for on a port of its own, where the settings name one; raises Problem.

    To be started before all else, so that it tells of a process that waits for what it needs, and ends last.
    """
    readiness = Readiness()
    if settings.ops_port is None:
        return readiness
    http = HttpServer(create_operations_app(readiness, process.metrics), settings.ops_host, settings.ops_port)
    try:
        process.own_ports.add(await http.start())
    except OSError:
        raise port_taken("HYDRASMS_OPS_PORT", settings.ops_port) from None
    process.stack.push_async_callback(http.stop)
    return readiness


def database_answers(database: Database) -> Ready:
    """Return what tells whether a database can be read."""

    async def ready() -> bool:
        try:
            await database.read(accounts_store.access_version)
        except (StoreUnavailable, StoreCorrupt):
            return False
        return True

    return ready
