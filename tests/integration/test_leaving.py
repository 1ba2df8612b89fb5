"""A core ends while clients call it: they go elsewhere before it closes."""

import asyncio
import contextlib
import time
from typing import Any

import grpc
import pytest

from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms.messaging.v1 import messaging_service_pb2_grpc as pb_grpc
from hydrasms_app.channel import way_to_core
from hydrasms_app.settings import load_settings
from hydrasms_core.rpc.interceptors import Pipeline
from hydrasms_core.rpc.leaving import Arrivals
from hydrasms_core.rpc.server import GrpcServer
from tests.support.waiting import eventually

CALLERS = 100
ROUNDS = 3
MOST_ROUNDS = 50


class Answering(pb_grpc.MessagingServiceServicer):
    """Answers after a moment, as a commit takes one."""

    def __init__(self):
        self.calls = 0

    async def SendMessage(self, request, context):
        self.calls += 1
        await asyncio.sleep(0.005)
        return pb.SendMessageResponse()


class Pair:
    """Two servers, and callers who know both and never pause."""

    def __init__(self, folder):
        self.paths = [folder / "a.sock", folder / "b.sock"]
        self.answering = [Answering(), Answering()]  # type: ignore[abstract]
        self.servers: list[Any] = [None, None]
        self.failures = []
        self.answered = 0
        self._calling = True

    def new_server(self, number):
        return GrpcServer(
            Pipeline([], guard=lambda _method, handler: handler),
            lambda target: pb_grpc.add_MessagingServiceServicer_to_server(self.answering[number], target),
            services=[],
            reflect=False,
        )

    async def start(self, number):
        server = self.new_server(number)
        server.listen(f"unix:{self.paths[number]}")
        await server.start()
        self.servers[number] = server

    async def has_calls(self, number):
        calls = self.answering[number].calls
        await eventually(lambda: self.answering[number].calls > calls + 10, what="calls")

    async def call_on(self, stub):
        while self._calling:
            try:
                await stub.SendMessage(pb.SendMessageRequest(), timeout=20)
                self.answered += 1
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{error.code().name}: {error.details()}")

    @contextlib.asynccontextmanager
    async def called(self):
        for number in (0, 1):
            await self.start(number)
        addresses = ",".join(f"unix:{path}" for path in self.paths)
        way = way_to_core(load_settings(HYDRASMS_CORE=addresses))
        async with grpc.aio.insecure_channel(way.address.target, options=way.options) as channel:
            stub = pb_grpc.MessagingServiceStub(channel)
            callers = [asyncio.create_task(self.call_on(stub)) for _ in range(CALLERS)]
            for number in (0, 1):
                await self.has_calls(number)
            yield
            self._calling = False
            await asyncio.wait_for(asyncio.gather(*callers), 30)
        for server in self.servers:
            await server.stop(1.0)

    async def replace(self, number):
        await self.servers[number].stop(10.0)
        await self.start(number)
        await self.has_calls(number)


async def test_no_call_fails_while_one_server_after_the_other_ends(tmp_path):
    pair = Pair(tmp_path)
    async with pair.called():
        for number in range(ROUNDS):
            await pair.replace(number % 2)
    assert pair.failures == []


async def test_calls_fail_where_a_server_ends_without_waiting_for_its_clients(tmp_path, monkeypatch):
    """The control: the same, but for the time in which clients go elsewhere."""

    async def at_once(_arrivals):
        pass

    monkeypatch.setattr(Arrivals, "end", at_once)
    pair = Pair(tmp_path)
    async with pair.called():
        for number in range(MOST_ROUNDS):
            await pair.replace(number % 2)
            if pair.failures:
                break
    assert pair.failures


async def test_a_server_that_stood_still_does_not_take_that_for_quiet(monkeypatch):
    """What came meanwhile lies in its socket: it has seen none of it yet."""
    arrivals = Arrivals(Pipeline([], guard=lambda _method, handler: handler))
    ending = asyncio.create_task(arrivals.end())
    await asyncio.sleep(0)
    # To the loop and to all on it, a process that was stopped is a clock that has gone on.
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 1.0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not ending.done()
    await asyncio.wait_for(ending, 20)


async def test_a_core_is_found_by_its_name(tmp_path):
    pair = Pair(tmp_path)
    server = pair.new_server(0)
    port = server.listen("127.0.0.1:0")
    await server.start()
    way = way_to_core(load_settings(HYDRASMS_CORE=f"dns:///localhost:{port}"))
    async with grpc.aio.insecure_channel(way.address.target, options=way.options) as channel:
        await pb_grpc.MessagingServiceStub(channel).SendMessage(pb.SendMessageRequest(), timeout=20)
    assert pair.answering[0].calls == 1
    await server.stop(1.0)


@pytest.mark.parametrize("callers", [0, 1])
async def test_a_server_that_nobody_watches_waits_for_nobody(tmp_path, monkeypatch, callers):
    async def never(_arrivals):
        raise AssertionError("it waited")

    monkeypatch.setattr(Arrivals, "end", never)
    pair = Pair(tmp_path)
    await pair.start(0)
    async with grpc.aio.insecure_channel(f"unix:{pair.paths[0]}") as channel:
        for _ in range(callers):
            await pb_grpc.MessagingServiceStub(channel).SendMessage(pb.SendMessageRequest(), timeout=20)
        await pair.servers[0].stop(1.0)
