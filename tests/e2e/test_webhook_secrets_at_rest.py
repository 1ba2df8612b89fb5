"""No secret of a webhook at rest, and no number that opted out but in the messages themselves."""

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import random
import shutil
import sqlite3
from dataclasses import dataclass, field

import grpc
import pytest
from standardwebhooks import Webhook

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms.accounts.v1 import account_service_pb2_grpc
from hydrasms.messaging.v1 import (
    messaging_service_pb2,
    messaging_service_pb2_grpc,
    shortcode_service_pb2,
    shortcode_service_pb2_grpc,
)
from hydrasms.webhooks.v1 import webhook_service_pb2, webhook_service_pb2_grpc
from tests.support.at_rest import DATABASE, hits, take_a_copy
from tests.support.receivers import receiving, request_of
from tests.support.served import served, wait_until
from tests.support.waiting import eventually

TIMEOUT_S = 30.0
ACCOUNTS = 6
# As many as the plan allows.
SHORTCODES = 5
# Where numbers belong: what was sent, what came, and the phones that the simulator plays.
MESSAGES = frozenset({"messages", "inbound_messages", "replies", "simulated_texts"})


@dataclass
class Used:
    """All that must not be found."""

    auths: dict[str, str] = field(default_factory=dict)
    """The present words, by shortcode."""
    signings: dict[str, str] = field(default_factory=dict)
    """The present signing secrets, by shortcode."""
    former: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Of accounts' own webhooks, and words that were refused."""
    numbers: list[str] = field(default_factory=list)

    def all(self):
        return [*self.auths.values(), *self.signings.values(), *self.former, *self.others]


class Core:
    """Calls the core's port as the holder of the service token."""

    def __init__(self, channel, token):
        self._metadata = (("authorization", f"Bearer {token}"),)
        self.accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self.messaging = messaging_service_pb2_grpc.MessagingServiceStub(channel)
        self.shortcodes = shortcode_service_pb2_grpc.ShortcodeServiceStub(channel)
        self.webhooks = webhook_service_pb2_grpc.WebhookServiceStub(channel)

    async def __call__(self, method, request):
        return await method(request, metadata=self._metadata, timeout=TIMEOUT_S)

    async def refused(self, method, request):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self(method, request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        return error.value.details()

    async def receive(self, sender, text):
        request = messaging_service_pb2.ReceiveInboundRequest(carrier="test", sender=sender, text=text)
        return await self(self.messaging.ReceiveInbound, request)


def echoing(requests):
    """Return a handler that keeps each request and answers with the whole of it, as servers for tests do."""

    async def handle(reader, writer):
        request = await request_of(reader)
        requests.append(request)
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(request) + request)
        await writer.drain()

    return handle


def given_word():
    return f'"given" {random.randbytes(18).hex()}'


async def set_up(core, used, url, number):
    """Open an account with shortcodes whose words are given, made and changed, and signing secrets rotated."""
    created = await core(
        core.accounts.CreateAccount,
        accounts_pb.CreateAccountRequest(name="test", plan=accounts_pb.PLAN_PREMIUM, initial_credits=10),
    )
    account_id, pb = created.account.id, shortcode_service_pb2
    for n in range(SHORTCODES):
        word = f"w{number}x{n}"
        given = given_word() if n % 2 else None
        request = pb.CreateShortcodeRequest(
            account_id=account_id, word=word, webhook_url=url, secret=given, idempotency_key=word
        )
        made = await core(core.shortcodes.CreateShortcode, request)
        again = await core(core.shortcodes.CreateShortcode, request)
        assert again.idempotent_replayed
        used.auths[word], used.signings[word] = given or made.secret, made.signing_secret
        if n in (2, 3):
            used.former.append(used.auths[word])
            used.auths[word] = given_word()
            await core(
                core.shortcodes.UpdateShortcode,
                pb.UpdateShortcodeRequest(account_id=account_id, shortcode_id=word, secret=used.auths[word]),
            )
        if n in (3, 4):
            used.former.append(used.signings[word])
            rotated = await core(
                core.webhooks.RotateSecret,
                webhook_service_pb2.RotateSecretRequest(account_id=account_id, endpoint_id=made.shortcode.id),
            )
            used.signings[word] = rotated.signing_secret
    own = await core(
        core.webhooks.SetAccountWebhook,
        webhook_service_pb2.SetAccountWebhookRequest(account_id=account_id, url=url),
    )
    used.others += [own.signing_secret, f"{given_word()}\x07", given_word() * 10]
    for refused in used.others[-2:]:
        change = pb.UpdateShortcodeRequest(account_id=account_id, shortcode_id=f"w{number}x0", secret=refused)
        assert refused[:20] not in await core.refused(core.shortcodes.UpdateShortcode, change)
    return account_id


async def opt_out(core, account_id, number):
    """Have an account send to a phone, and the phone say STOP."""
    await core(
        core.messaging.SendMessage,
        messaging_service_pb2.SendMessageRequest(account_id=account_id, recipient=number, content="Hello"),
    )

    async def opted_out():
        # Before the message is on its way a STOP is for nobody.
        answer = await core.receive(number, "STOP")
        return answer.outcome == messaging_service_pb2.INBOUND_OUTCOME_OPTED_OUT

    await eventually(opted_out, what="an opt-out")


async def use(server, used):
    """Use secrets in every way, have them pushed to a receiver, and phones opt out; returns what was pushed."""
    token = (server.data_dir / "service.token").read_text().strip()
    requests: list[bytes] = []
    async with (
        receiving(echoing(requests)) as receiver,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        core = Core(channel, token)
        for number in range(ACCOUNTS):
            account_id = await set_up(core, used, receiver.url, number)
            used.numbers.append(f"+4477009001{number:02}")
            await opt_out(core, account_id, used.numbers[-1])
        for word in used.auths:
            await core.receive("+447700900555", f"{word} hello")
        # And that a message was delivered, of each account.
        await eventually(lambda: len(requests) == len(used.auths) + ACCOUNTS, what="all pushes")
        wait_until(lambda: pushed_and_settled(server) == len(requests), what="all answers")
    return requests


def pushed_and_settled(server):
    with contextlib.closing(sqlite3.connect(server.data_dir / "hydrasms.db")) as connection:
        return connection.execute("SELECT count(*) FROM webhook_attempts WHERE answer <> ''").fetchone()[0]


def assert_used(requests, used):
    """What was looked for is what was used: each push carries its word, and is signed with its secret."""
    seen = {}
    for request in requests:
        head, _, body = request.partition(b"\r\n\r\n")
        content = json.loads(body)
        if "auth" in content:
            lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
            headers = {name.lower(): value for name, _, value in lines}
            Webhook(used.signings[content["shortcode"]]).verify(body.decode(), headers)
            seen[content["shortcode"]] = content["auth"]
    assert seen == used.auths


def digests_of(numbers):
    """Return hashes that anybody could make of numbers, as they might be written."""
    forms = [form.encode() for number in numbers for form in (number, number[1:])]
    sums = [hashlib.new(name, form).digest() for form in forms for name in ("sha256", "sha1", "md5")]
    return [each for raw in sums for each in (raw.hex().encode(), base64.urlsafe_b64encode(raw)[:20], raw)]


def raw_hits(folder, pieces):
    """Return which files below a folder hold which of these octets."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {(path.name, piece) for path in files for piece in pieces if piece in path.read_bytes()}


def tables_with(file, numbers):
    """Return the tables of a database where any of these numbers stands in any column, with or without its plus."""
    found = set()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            for row in connection.execute(f"SELECT * FROM {table}"):
                if any(number[1:] in str(value) for value in row for number in numbers):
                    found.add(table)
    return found


def assert_no_number(copy, numbers):
    logs = [copy / "var.log", copy / "var.out"]
    assert [n for n in numbers for log in logs if n[1:] in log.read_text()] == []
    assert raw_hits(copy, digests_of(numbers)) == set()
    for file in (copy / "var" / "hydrasms.db", copy / "backup.db"):
        assert {"messages", "inbound_messages"} <= tables_with(file, numbers) <= MESSAGES
        with contextlib.closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM opt_outs").fetchone() == (len(numbers),)


def test_no_secret_of_a_webhook_and_no_number_that_opted_out_is_found(tmp_path):
    used = Used()
    (tmp_path / "run").mkdir()
    with served(tmp_path / "run" / "var") as server:
        requests = asyncio.run(use(server, used))
        live = take_a_copy(server, tmp_path / "live")
        backup = server.run("db", "backup", str(live / "backup.db"))
        assert backup.returncode == 0, backup.stderr
        assert server.terminate() == 0
        stopped = take_a_copy(server, tmp_path / "stopped")
        shutil.copyfile(live / "backup.db", stopped / "backup.db")
    assert_used(requests, used)
    secrets = used.all()
    assert len(set(secrets)) == len(secrets)
    # The write-ahead log is there to be searched while the server is up.
    assert all((live / "var" / name).stat().st_size > 0 for name in DATABASE)
    keys = [base64.b64decode(each.removeprefix("whsec_")) for each in secrets if each.startswith("whsec_")]
    sealing_key = (stopped / "var" / "sealing.key").read_text().strip()
    for copy in (live, stopped):
        assert hits(copy, [*secrets, sealing_key]) == set()
        assert raw_hits(copy, keys) == set()
        assert_no_number(copy, used.numbers)
    assert_planted_is_found(stopped, tmp_path, used, keys)


def assert_planted_is_found(copy, tmp_path, used, keys):
    """The control: whatever is planted anywhere is found there."""
    secrets = used.all()
    kinds = [*used.auths.values()][:2] + [*used.signings.values()][:1] + used.former[:2] + used.others[:3]
    ways = itertools.cycle([str.encode, lambda each: each.encode().hex().encode()])
    for number, (secret, way) in enumerate(zip(kinds, ways, strict=False)):
        for name in ("hydrasms.db", "backup.db", "var.log"):
            planted = shutil.copytree(copy, tmp_path / f"planted-{number}-{name}")
            with next(planted.rglob(name)).open("ab") as file:
                file.write(way(secret))
            assert hits(planted, secrets) == {(name, secret)}
    planted = shutil.copytree(copy, tmp_path / "planted")
    with (planted / "var.log").open("ab") as file:
        file.write(keys[0] + digests_of(used.numbers)[0])
    assert {name for name, _ in raw_hits(planted, [keys[0]])} == {"var.log"}
    assert {name for name, _ in raw_hits(planted, digests_of(used.numbers))} == {"var.log"}
    with contextlib.closing(sqlite3.connect(planted / "backup.db")) as connection:
        connection.execute("UPDATE opt_outs SET number_hash = ? WHERE rowid = 2", (used.numbers[0],))
        connection.commit()
    assert "opt_outs" in tables_with(planted / "backup.db", used.numbers)
