"""One run of a gRPC client, in a process of its own because grpc.aio wants one event loop a process.

`python -m bench.grpc_run WHAT SECONDS AT_ONCE WHERE [ACCOUNTS]`: WHAT is `send` or `batch-N` and WHERE an address,
or WHAT is `loopback`, `interceptors` or `handler`, all in this very process, and WHERE a new folder for its data.
ACCOUNTS is a file with one account id a line; the service token comes as BENCH_TOKEN.
"""

import dataclasses
import json
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.accounts import CREDITS
from bench.bare_grpc import echo
from bench.hammer import Call, hammer
from bench.sample import Sample
from bench.texts import random_recipient, random_text
from hydrasms.accounts.v1 import account_service_pb2, account_service_pb2_grpc
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms.messaging.v1 import messaging_service_pb2_grpc
from hydrasms_app.compose import running
from hydrasms_app.database import prepare_database
from hydrasms_app.settings import load_settings
from hydrasms_base.clock import SystemClock
from hydrasms_base.log import configure_logging
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import make_secret
from hydrasms_core.rpc.auth import Authentication, ServiceTokens, account_methods
from hydrasms_core.rpc.interceptors import Deadlines, Errors, Observation, Pipeline, RequestIds
from hydrasms_core.rpc.loopback import Loopback

_TIMEOUT_S = 30.0
_PREPARED = 256
_PREPARED_BATCHES = 16
_LOOPBACK_ACCOUNTS = 100
_IN_PROCESS = ("loopback", "interceptors", "handler")

Metadata = tuple[tuple[str, str], ...]


class NoKeys:
    """Stands in for the accounts where every caller is an internal service."""

    async def account_of(self, digest: str) -> str:
        """Never come to be asked."""
        raise NotImplementedError(digest)


def bearer(token: str) -> Metadata:
    """Return the metadata of an internal service's call."""
    return (("authorization", f"Bearer {token}"),)


def sending(channel: Any, metadata: Metadata, accounts: list[str]) -> Call:
    """Return a call that sends one message for a random account."""
    stub = messaging_service_pb2_grpc.MessagingServiceStub(channel)
    requests = [
        pb.SendMessageRequest(
            account_id=random.choice(accounts), recipient=random_recipient(), content=random_text()
        )
        for _ in range(_PREPARED)
    ]

    async def send(_: int) -> bool:
        answer = await stub.SendMessage(random.choice(requests), metadata=metadata, timeout=_TIMEOUT_S)
        return bool(answer.message.id)

    return send


def batching(channel: Any, metadata: Metadata, accounts: list[str], items: int) -> Call:
    """Return a call that sends a batch for a random account; it went well where all of it was accepted."""
    stub = messaging_service_pb2_grpc.MessagingServiceStub(channel)
    requests = [
        pb.BatchSendMessagesRequest(
            account_id=account_id,
            items=[
                pb.BatchSendMessagesItem(recipient=random_recipient(), content=random_text())
                for _ in range(items)
            ],
        )
        for account_id in random.sample(accounts, min(len(accounts), _PREPARED_BATCHES))
    ]

    async def send(_: int) -> bool:
        request = random.choice(requests)
        answer = await stub.BatchSendMessages(request, metadata=metadata, timeout=_TIMEOUT_S)
        return sum(result.HasField("accepted") for result in answer.results) == items

    return send


async def over_tcp(what: str, seconds: float, at_once: int, address: str, accounts: list[str]) -> Sample:
    """Measure calls to a server in another process."""
    metadata = bearer(os.environ.get("BENCH_TOKEN", "none"))
    async with grpc.aio.insecure_channel(address) as channel:
        if what == "send":
            return await hammer(sending(channel, metadata, accounts), callers=at_once, seconds=seconds)
        items = int(what.removeprefix("batch-"))
        call = batching(channel, metadata, accounts, items)
        return await hammer(call, callers=at_once, seconds=seconds, weight=items)


async def over_loopback(seconds: float, at_once: int, folder: Path) -> Sample:
    """Measure durable sends within one process: everything that `serve --no-dispatcher` runs, but its edge."""
    settings = load_settings(data_dir=folder, http_port=0, grpc_port=0)
    prepare_database(settings)
    async with running(settings, dispatcher=False) as server:
        metadata = bearer(server.token.reveal())
        stub = account_service_pb2_grpc.AccountServiceStub(server.channel)
        accounts = []
        for number in range(_LOOPBACK_ACCOUNTS):
            request = account_service_pb2.CreateAccountRequest(name=f"{number}", initial_credits=CREDITS)
            made = await stub.CreateAccount(request, metadata=metadata, timeout=_TIMEOUT_S)
            accounts.append(made.account.id)
        return await hammer(sending(server.channel, metadata, accounts), callers=at_once, seconds=seconds)


async def without_store(what: str, seconds: float, at_once: int, folder: Path) -> Sample:
    """Measure the call alone: a servicer that answers at once, with or without the interceptors before it."""
    metadata = bearer(make_secret(folder / "token").reveal())
    clock = SystemClock()
    methods: Mapping[str, bool] = account_methods([pb.DESCRIPTOR])
    authentication = Authentication(ServiceTokens(folder / "token", clock), NoKeys(), methods)
    pipeline = Pipeline(
        [RequestIds(), Observation(Metrics()), Errors(), Deadlines(), authentication],
        guard=authentication.guard_stream,
    )
    loopback: Any = Loopback([pipeline] if what == "interceptors" else ())
    messaging_service_pb2_grpc.add_MessagingServiceServicer_to_server(echo(), loopback)
    return await hammer(sending(loopback, metadata, ["account"]), callers=at_once, seconds=seconds)


async def run(what: str, seconds: float, at_once: int, where: str, accounts: list[str]) -> Sample:
    """Measure what the command line names."""
    if what == "loopback":
        return await over_loopback(seconds, at_once, Path(where))
    if what in _IN_PROCESS:
        return await without_store(what, seconds, at_once, Path(where))
    return await over_tcp(what, seconds, at_once, where, accounts)


def main() -> None:
    """Measure and print the sample as JSON."""
    configure_logging("warning")
    what, seconds, at_once, where, *rest = sys.argv[1:]
    accounts = Path(rest[0]).read_text().split() if rest else []
    if what in _IN_PROCESS:
        Path(where).mkdir()
    sample = uvloop.run(run(what, float(seconds), int(at_once), where, accounts))
    print(json.dumps(dataclasses.asdict(sample)))


if __name__ == "__main__":
    main()
