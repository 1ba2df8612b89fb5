"""How soon a webhook has a text: `python -m bench.deliver_idle ADDRESS ACCOUNT WORD SECONDS`.

It is the carrier and the receiver, so that one clock has both ends. The service token comes as BENCH_TOKEN.
"""

import asyncio
import dataclasses
import json
import os
import random
import sys
import time

import grpc
import orjson
import uvloop

from bench.grpc_run import bearer
from bench.receivers import listen
from bench.sample import Sample, of_latencies
from bench.texts import random_recipient
from hydrasms.messaging.v1 import (
    messaging_service_pb2,
    messaging_service_pb2_grpc,
    shortcode_service_pb2,
    shortcode_service_pb2_grpc,
)
from hydrasms_base.ids import new_id

_TIMEOUT_S = 10.0
_WARM_UP = 3
# Long enough for everything to have come to rest, and never in step with any timer.
_PAUSE_S = (0.05, 0.15)


class Arrivals:
    """When each text reached the webhook."""

    def __init__(self) -> None:
        self._awaited: dict[str, asyncio.Future[float]] = {}

    def take(self, body: bytes) -> None:
        """Note a push."""
        waiting = self._awaited.pop(orjson.loads(body)["messageContent"], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(time.perf_counter())

    def of(self, content: str) -> "asyncio.Future[float]":
        """Return what will have the time, by `perf_counter`, at which a text arrived."""
        return self._awaited.setdefault(content, asyncio.get_running_loop().create_future())


async def run(address: str, account_id: str, word: str, seconds: float, token: str) -> Sample:
    """Let one text after the other come in, and measure from before the call until its push is here."""
    metadata, arrivals = bearer(token), Arrivals()
    server, port = await listen(arrivals.take)
    latencies_s: list[float] = []
    errors = 0
    async with grpc.aio.insecure_channel(address) as channel:
        claim = shortcode_service_pb2.CreateShortcodeRequest(
            account_id=account_id, word=word, webhook_url=f"http://127.0.0.1:{port}/hook"
        )
        stub = shortcode_service_pb2_grpc.ShortcodeServiceStub(channel)
        await stub.CreateShortcode(claim, metadata=metadata, timeout=_TIMEOUT_S)
        messaging = messaging_service_pb2_grpc.MessagingServiceStub(channel)

        async def latency_s() -> float:
            content = new_id()
            arrived = arrivals.of(content)
            text = messaging_service_pb2.ReceiveInboundRequest(
                carrier="bench",
                carrier_message_id=content,
                sender=random_recipient(),
                text=f"{word} {content}",
            )
            began = time.perf_counter()
            await messaging.ReceiveInbound(text, metadata=metadata, timeout=_TIMEOUT_S)
            async with asyncio.timeout(_TIMEOUT_S):
                return await arrived - began

        for _ in range(_WARM_UP):
            await latency_s()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            await asyncio.sleep(random.uniform(*_PAUSE_S))
            try:
                latencies_s.append(await latency_s())
            except TimeoutError:
                errors += 1
        elapsed = time.perf_counter() - began
    server.close()
    return of_latencies(latencies_s, elapsed, errors=errors)


def main() -> None:
    """Measure, and print the sample as JSON."""
    address, account_id, word, seconds = sys.argv[1:]
    sample = uvloop.run(run(address, account_id, word, float(seconds), os.environ["BENCH_TOKEN"]))
    print(json.dumps(dataclasses.asdict(sample)))


if __name__ == "__main__":
    main()
