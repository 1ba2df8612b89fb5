"""A text from a phone reaches its owner's server: across processes, an outage of the server and kills of ours."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms.messaging.v1 import messaging_service_pb2_grpc
from tests.support.served import Served, free_port, wait_until
from tests.support.webhook_receiver import ReceiverProcess

PHONE = "+447700900123"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    process = ReceiverProcess(free_port(), tmp_path / "received.jsonl")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def server(tmp_path: Path, database_url: str | None) -> Iterator[Served]:
    # Loopback is allowed by default on SQLite alone.
    running = Served(
        tmp_path / "var", database_url=database_url, variables={"HYDRASMS_WEBHOOK_ALLOW": "127.0.0.0/8"}
    )
    running.start()
    yield running
    if running.is_up():
        running.kill()


def text_in(server: Served, text: str, **options: str) -> dict[str, object]:
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    return dict(server.json("simulate", "inbound", "--from", PHONE, text, *flags))


def deliveries(server: Served, account_id: str) -> list[dict[str, object]]:
    return list(server.json("deliveries", "list", account_id, "--page-size", "1000")["deliveries"])


def test_a_text_is_routed_pushed_verified_and_listed(server, receiver):
    account = server.account()
    code = server.json(
        "shortcode", "create", account.id, "Order", "--webhook", receiver.url, "--secret", "s3cret"
    )
    received = text_in(server, "ORDER  large  pepperoni")
    assert received["account_id"] == account.id
    (push,) = receiver.wait_for(1)
    assert json.loads(push["body"]) == {
        "sender": PHONE,
        "auth": "s3cret",
        "shortcode": "order",
        "messageContent": "large  pepperoni",
    }
    assert "authorization" not in push["headers"]
    assert push["headers"]["content-type"] == "application/json"
    Webhook(code["signing_secret"]).verify(push["body"], push["headers"])
    with pytest.raises(WebhookVerificationError):
        Webhook(code["signing_secret"]).verify(push["body"].replace("large", "small"), push["headers"])

    def listed() -> object:
        rows = server.get("/api/messages", Authorization=account.key).body
        return rows if rows[0]["webhook_status"] is not None else None

    (row,) = wait_until(listed, what="the webhook's status in the list")
    assert row == {
        "id": received["id"],
        "userID": account.id,
        "sender": PHONE,
        "shortcode": "order",
        "content": "large  pepperoni",
        "webhook_status": 200,
        "created_at": row["created_at"],
    }
    (delivery,) = deliveries(server, account.id)
    assert delivery["id"] == push["headers"]["webhook-id"]
    assert delivery["status"] == "delivered"


def test_every_text_arrives_after_an_outage_and_kills_under_one_id_each(server, receiver):
    account = server.account()
    code = server.json("shortcode", "create", account.id, "order", "--webhook", receiver.url)
    receiver.stop()
    texts = [f"number {number}" for number in range(12)]
    for number, text in enumerate(texts):
        text_in(server, f"order {text}", id=f"text-{number}")
        if number % 4 == 3:
            server.kill()
            server.start()
    # The carrier, which heard nothing of the kills, brings some again.
    assert text_in(server, "order number 0", id="text-0")["duplicate"]
    wait_until(
        lambda: all(each["attempts"] for each in deliveries(server, account.id)), what="an attempt at each"
    )
    receiver.start()
    server.kill()
    server.start()
    for each in deliveries(server, account.id):
        if each["status"] != "delivered":
            # Their schedule would have them wait for minutes by now. One that was delivered meanwhile is refused.
            with contextlib.suppress(AssertionError):
                server.json("deliveries", "redeliver", str(each["id"]))
    pushes = receiver.wait_for(len(texts))
    by_id = {push["headers"]["webhook-id"]: json.loads(push["body"])["messageContent"] for push in pushes}
    assert sorted(by_id.values()) == sorted(texts)
    assert set(by_id) == {each["id"] for each in deliveries(server, account.id)}
    for push in pushes:
        Webhook(code["signing_secret"]).verify(push["body"], push["headers"])
    wait_until(
        lambda: {each["status"] for each in deliveries(server, account.id)} == {"delivered"},
        what="all delivered",
    )


def test_the_newest_100_are_listed_newest_first(server):
    account = server.account()
    assert server.get("/api/messages", Authorization=account.key).status == 404
    server.json("shortcode", "create", account.id, "order")
    token = (server.data_dir / "service.token").read_text().split()[0]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        core = messaging_service_pb2_grpc.MessagingServiceStub(channel)
        for number in range(101):
            core.ReceiveInbound(
                pb.ReceiveInboundRequest(carrier="test", sender=PHONE, text=f"order {number}"),
                metadata=[("authorization", f"Bearer {token}")],
                timeout=30,
            )
    rows = server.get("/api/messages", Authorization=account.key).body
    assert [row["content"] for row in rows] == [str(number) for number in range(100, 0, -1)]
    assert {row["webhook_status"] for row in rows} == {None}
