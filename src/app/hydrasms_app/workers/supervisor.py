"""The parent of several workers: it prepares what they share, keeps them running, and ends with them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, NamedTuple

from hydrasms_app import greetings
from hydrasms_app.damage import damage_told
from hydrasms_app.data_dir import held_data_dir
from hydrasms_app.database import await_database, open_database
from hydrasms_app.problems import Problem
from hydrasms_app.serving import Up, serve_until_told
from hydrasms_app.settings import Settings
from hydrasms_app.token import service_token
from hydrasms_app.workers.line import Message
from hydrasms_app.workers.ports import SharedPorts, shared_ports
from hydrasms_app.workers.process import Plan, WorkerProcess
from hydrasms_base.clock import SystemClock
from hydrasms_base.log import configure_logging, get_logger
from hydrasms_core.messaging import delivery_store

_FIRST_BACK_OFF_S = 0.1
_MAX_BACK_OFF_S = 5.0
# A worker that was up for less long has died at once.
_STEADY_S = 1.0
_MOST_DEATHS_AT_ONCE = 5
# Longer than a worker takes at most to drain.
_DRAIN_S = 40.0

log = get_logger(__name__)


def serve(
    settings: Settings,
    role: Literal["core", "edge", "worker"] | None = None,
    *,
    dispatcher: bool = True,
    demo: bool = True,
) -> None:
    """Run workers until SIGTERM or SIGINT, then have them drain; raises Problem."""
    if role not in (None, "edge"):
        raise Problem(
            f"only an edge, or everything, can be several workers: start {role} with HYDRASMS_WORKERS=1"
        )
    configure_logging(settings.log_level, settings.log_format)
    plan = Plan(settings, role, dispatcher, demo)
    serving = _everything(plan) if role is None else _edges(plan)
    with damage_told(settings):
        asyncio.run(serve_until_told(serving))


@contextlib.asynccontextmanager
async def _everything(plan: Plan) -> AsyncIterator[Up]:
    settings = plan.settings
    with held_data_dir(settings.data_dir, shared=False), shared_ports(settings, core=True) as ports:
        await await_database(settings)
        service_token(settings)
        if plan.dispatcher and isinstance(settings.database, Path):
            await _release_claims(settings)
        async with supervised(plan, ports) as (up, failure):
            yield greetings.workers(settings, ports.http_port, up), failure


@contextlib.asynccontextmanager
async def _edges(plan: Plan) -> AsyncIterator[Up]:
    with shared_ports(plan.settings, core=False) as ports:
        async with supervised(plan, ports) as (up, failure):
            yield greetings.edges(plan.settings, ports.http_port, up), failure


@contextlib.asynccontextmanager
async def supervised(
    plan: Plan, ports: SharedPorts
) -> AsyncIterator[tuple[list[Message], "asyncio.Future[None]"]]:
    """Run workers as planned; all are up when the block begins, and have ended when it is left.

    Gives what each says of itself, and a future that is done when there is no point in going on. Raises Problem,
    also where a worker did not end in order.
    """
    supervisor = Supervisor(plan, ports)
    try:
        yield await supervisor.start(), supervisor.failure
        log.info("draining")
    finally:
        await supervisor.stop()


async def _release_claims(settings: Settings) -> None:
    """Let go of what dead predecessors had claimed in a file: a worker cannot tell, for its siblings live."""
    database = open_database(settings)
    try:
        now_ms = SystemClock().now_ms()
        released = await database.write(lambda tx: delivery_store.release_claims(tx, now_ms=now_ms))
    finally:
        await database.close()
    if released:
        log.warning("claims_released", messages=released)


class Supervisor:
    """Keeps workers running, and replaces those that die.

    `failure` is done, and holds a Problem, when there is no point in going on.
    """

    def __init__(self, plan: Plan, ports: SharedPorts) -> None:
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._plan = plan
        self._count = plan.settings.workers
        self._ports = ports
        self._running: dict[int, WorkerProcess] = {}
        self._said: dict[int, Message] = {}
        self._are_up = False
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> list[Message]:
        """Start all workers and return what each says of itself once all are up; raises Problem."""
        for number in range(self._count):
            self._keepers.append(asyncio.create_task(self._keep(number), name=f"worker-{number}"))
        self.failure.add_done_callback(lambda _: self._settled.set())
        await self._settled.wait()
        if self.failure.done():
            self.failure.result()
        return [self._said[number] for number in range(self._count)]

    async def stop(self) -> None:
        """Have all workers drain, and return when they have ended; raises Problem where one did not in order."""
        self._stopping.set()
        self._ports.close()
        for worker in self._running.values():
            worker.terminate()
        if not self._keepers:
            return
        _, late = await asyncio.wait(self._keepers, timeout=_DRAIN_S)
        if late:
            for worker in self._running.values():
                worker.kill()
            await asyncio.wait(late)
        for keeper in self._keepers:
            if not self.failure.done():
                keeper.result()

    def is_up(self, number: int, said: Message) -> None:
        """Take note that a worker serves."""
        self._said[number] = said
        if len(self._said) == self._count:
            self._are_up = True
            self._settled.set()

    async def reports(self, *, but: int) -> dict[str, str | None]:
        """Return the metrics of all workers but one, by number; None stands for one that has none."""
        others = [number for number in range(self._count) if number != but]
        reports = await asyncio.gather(*(self._report(number) for number in others))
        return {str(number): report for number, report in zip(others, reports, strict=True)}

    async def _report(self, number: int) -> str | None:
        worker = self._running.get(number)
        return None if worker is None else await worker.report()

    async def _keep(self, number: int) -> None:
        """See to it that there is a worker of this number until all are to stop; raises Problem."""
        deaths_at_once = 0
        while not self._stopping.is_set():
            died = await self._run_once(number)
            if died is None:
                return
            deaths_at_once = deaths_at_once + 1 if died.at_once else 0
            if not self._are_up or deaths_at_once >= _MOST_DEATHS_AT_ONCE:
                self._give_up(number, died.how, deaths_at_once)
                return
            back_off_s = min(_FIRST_BACK_OFF_S * 2**deaths_at_once, _MAX_BACK_OFF_S)
            log.error("worker_died", worker=number, how=died.how, restart_s=back_off_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(back_off_s):
                    await self._stopping.wait()

    async def _run_once(self, number: int) -> "_Death | None":
        """Run a worker to its end; returns how it died, or None where it was told to end and did so in order."""
        try:
            worker = await WorkerProcess.start(self._plan, number, self._ports, self)
        except OSError as error:
            return _Death(f"cannot be started: {error.strerror}", at_once=True)
        self._running[number] = worker
        if self._stopping.is_set():
            worker.terminate()
        status = await worker.ended()
        del self._running[number]
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if not self._stopping.is_set():
            return _Death(how, at_once=worker.served_s < _STEADY_S)
        if status == 0 or not worker.was_up:
            return None
        raise Problem(f"worker {number} {how} instead of ending in order")

    def _give_up(self, number: int, how: str, deaths: int) -> None:
        again = f", {deaths} times in a row" if deaths > 1 else ""
        log.error("worker_given_up", worker=number, how=how)
        if not self.failure.done():
            self.failure.set_exception(Problem(f"worker {number} {how}{again}; the lines above may say why"))


class _Death(NamedTuple):
    how: str
    at_once: bool
    """Whether it had hardly served."""
