"""One worker as its parent sees it: a process, from its start to its end, and the line to it."""

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from typing import Literal, NamedTuple, Protocol

from hydrasms_app.settings import Settings
from hydrasms_app.workers.line import Line, Message
from hydrasms_app.workers.orders import Orders, environment
from hydrasms_app.workers.ports import SharedPorts

_REPORT_S = 1.0


class Plan(NamedTuple):
    """What all workers are to serve, and how."""

    settings: Settings
    role: Literal["edge"] | None
    dispatcher: bool
    demo: bool


class Parent(Protocol):
    """What a worker's messages are for."""

    def is_up(self, number: int, said: Message) -> None:
        """Take note that a worker serves, and of what it says of itself."""
        ...

    async def reports(self, *, but: int) -> dict[str, str | None]:
        """Return the metrics of all workers but one, by number; None stands for one that has none."""
        ...


class WorkerProcess:
    """A worker that runs, or has ended."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, line: Line, parent: Parent) -> None:
        self.number = number
        self._process = process
        self._line = line
        self._parent = parent
        self._up_at: float | None = None
        self._reports: deque[asyncio.Future[str]] = deque()
        self._telling: set[asyncio.Task[None]] = set()
        self._hearing = asyncio.create_task(self._hear(), name=f"line-{number}")

    @classmethod
    async def start(
        cls,
        plan: Plan,
        number: int,
        ports: SharedPorts,
        parent: Parent,
    ) -> "WorkerProcess":
        """Start a worker, which tells its parent when it is up; raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.enter_context(ours)
            orders = Orders(
                plan.role,
                number,
                os.getpid(),
                theirs.fileno(),
                ports.http[number].fileno(),
                plan.dispatcher,
                # One makes the demo account, where one is wanted; the others need not look.
                plan.demo and number == 0,
            )
            process = await asyncio.create_subprocess_exec(
                *orders.command(),
                env=environment(plan.settings, **ports.taken),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(orders.line, orders.http),
            )
            stack.pop_all()
        return cls(number, process, await Line.over(ours), parent)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def was_up(self) -> bool:
        """Whether it has ever served."""
        return self._up_at is not None

    @property
    def served_s(self) -> float:
        """How long it has been up, in seconds; 0 where it never was."""
        return 0.0 if self._up_at is None else time.monotonic() - self._up_at

    async def ended(self) -> int:
        """Wait until it has ended and return its exit status: negative for a signal that killed it."""
        status = await self._process.wait()
        await self._hearing
        await self._line.close()
        return status

    async def report(self) -> str | None:
        """Return its metrics; None where it is not up, or does not answer in time."""
        if not self.was_up or self._hearing.done():
            return None
        report: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reports.append(report)
        self._line.say("report")
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_REPORT_S):
                return await report
        return None

    def terminate(self) -> None:
        """Tell it to drain and end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End it by force."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _hear(self) -> None:
        async for message in self._line.heard():
            match message["say"]:
                case "ready":
                    self._up_at = time.monotonic()
                    self._parent.is_up(self.number, message)
                case "report":
                    # They come in the order in which they were asked for, also those that came too late.
                    report = self._reports.popleft()
                    if not report.done():
                        report.set_result(message["text"])
                case "scrape":
                    task = asyncio.create_task(self._tell_reports())
                    self._telling.add(task)
                    task.add_done_callback(self._telling.discard)
        for report in self._reports:
            report.cancel()

    async def _tell_reports(self) -> None:
        self._line.say("reports", reports=await self._parent.reports(but=self.number))
