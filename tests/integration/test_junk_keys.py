"""Junk keys cost nothing, and a key that is taken away is refused within a second (bars, access, 20)."""

import asyncio
import contextlib
import random
import re
import string
import time

import pytest

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms_base.clock import SystemClock
from hydrasms_base.keys import PREFIX, digest_key, generate_key
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.db.list_keeper import ListKeeper
from hydrasms_core.errors import ApiKeyDisabled, UnknownApiKey
from hydrasms_edge import auth
from tests.support.databases import ON_SQLITE, opened
from tests.support.product import PHONE, TIMEOUT_S
from tests.support.waiting import eventually

AT_ONCE = 50
WITHIN_S = 1.0
ALPHABET = string.digits + string.ascii_letters


def mutations(key, number):
    """Return keys that are one or two slips of the hand away from a key, with its prefix left whole."""
    chance = random.Random(20)
    body = key.removeprefix(PREFIX)
    found: set[str] = set()
    while len(found) < number:
        at, other = chance.randrange(len(body)), chance.choice(ALPHABET)
        mutated = chance.choice(
            [
                body[:at] + other + body[at + 1 :],
                body[:at] + body[at + 1 :],
                body[:at] + other + body[at:],
                body[:at] + body[at : at + 2][::-1] + body[at + 2 :],
                body[:at] + body[at].swapcase() + body[at + 1 :],
                body[:at],
                body + body[: at + 1],
                body[at:] + body[:at],
                body[:at] + chance.choice("-_.~!*'(),;:@/?=&%#") + body[at + 1 :],
                body[:at] + other + body[at + 1 : -1] + chance.choice(ALPHABET),
            ]
        )
        if mutated != body:
            found.add(PREFIX + mutated)
    return sorted(found)


class Reads:
    """Counts what the database is asked, and the calls that reach the core."""

    def __init__(self, product, monkeypatch):
        self.reads = 0
        self._product = product
        for name in ("read", "write"):
            monkeypatch.setattr(product.database, name, self._counted(getattr(product.database, name)))

    def _counted(self, ask):
        async def counted(*arguments):
            self.reads += 1
            return await ask(*arguments)

        return counted

    async def calls(self):
        """Return how many calls the core has answered."""
        text = (await self._product.http.get("/metrics")).text
        assert "# TYPE hydrasms_rpc_calls_total counter" in text
        return sum(
            float(count) for count in re.findall(r"^hydrasms_rpc_calls_total\{.*\} (\S+)$", text, re.M)
        )


@pytest.fixture
def asked(still_product, monkeypatch):
    async def nothing(_keeper):
        return {}

    # It looks from time to time, whoever asks.
    monkeypatch.setattr(ListKeeper, "catch_up", nothing)
    return Reads(still_product, monkeypatch)


async def post(product, key):
    return await product.http.post(
        "/api/messages", headers={"Authorization": key}, json={"recipient": PHONE, "content": "Hello"}
    )


async def answers_to(product, keys):
    found = []
    for start in range(0, len(keys), AT_ONCE):
        found += await asyncio.gather(*(post(product, key) for key in keys[start : start + AT_ONCE]))
    return {(answer.status_code, answer.json().get("code")) for answer in found}


async def assert_refused_unasked(product, asked, number):
    account = await product.account(credits=1)
    reads, calls = asked.reads, await asked.calls()
    assert await answers_to(product, mutations(account.key, number)) == {(401, "UNKNOWN_API_KEY")}
    assert (asked.reads, await asked.calls()) == (reads, calls)
    # The key that they were made from works, so it was the slips that they were refused for.
    assert (await post(product, account.key)).status_code == 200


@ON_SQLITE
async def test_1_000_mutated_keys_are_401_and_nobody_is_asked(still_product, asked):
    await assert_refused_unasked(still_product, asked, 1_000)


@ON_SQLITE
@pytest.mark.faults
async def test_10_000_mutated_keys_are_401_and_nobody_is_asked(still_product, asked):
    await assert_refused_unasked(still_product, asked, 10_000)


@ON_SQLITE
async def test_control_an_edge_that_checks_no_digits_is_caught(still_product, asked, monkeypatch):
    monkeypatch.setattr(auth, "is_plausible", lambda key: key.isascii())
    reads = asked.reads
    with pytest.raises(AssertionError):
        await assert_refused_unasked(still_product, asked, 20)
    assert asked.reads >= reads + 20


@pytest.mark.parametrize("unknown", ["key-of-another-system", generate_key()], ids=["imported", "own form"])
async def test_control_an_unknown_key_that_could_exist_is_looked_up(still_product, asked, unknown):
    reads, calls = asked.reads, await asked.calls()
    assert await answers_to(still_product, [unknown]) == {(401, "UNKNOWN_API_KEY")}
    assert asked.reads > reads
    assert await asked.calls() == calls + 1


RAW = {
    "é in UTF-8": "é".encode(),
    "é in Latin-1": b"\xe9",
    "é after the key": b"%b\xc3\xa9",
    "é in the key": b"hsms_\xc3\xa9%b",
    "every byte over 0x7F": bytes(range(0x80, 0x100)),
    "NUL": b"\0",
    "NUL after the key": b"%b\0",
    "NUL before the key": b"\0%b",
    "CR after the key": b"%b\rx",
    "CR LF inside": b"junk\r\nkey",
    "CR LF and the key": b"junk\r\n%b",
    "a folded line": b"%b\r\n  x",
    "LF inside": b"junk\nkey",
    "DEL": b"%b\x7f",
    "ESC": b"\x1b[2J%b",
    "a tab inside": b"hsms_\t%b",
    "8 kB": b"a" * 8_192,
    "8 kB with our prefix": b"hsms_" + b"a" * 8_192,
    "8 kB after the key": b"%b" + b"a" * 8_192,
    "8 kB of é": b"\xc3\xa9" * 4_096,
    "64 kB": b"a" * 65_536,
    "Bearer": b"Bearer %b",
    "two keys": b"%b, %b",
}


async def raw_status(product, value):
    """Return the status that a header value gets as it is on the wire; None where it was just hung up on."""
    body = b"recipient=%2B447700900000&content=Hello"
    head = b"POST /api/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + value
    form = b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", product.server.http_port)
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(ConnectionError):
            writer.write(head + form + body)
            await writer.drain()
        answer = await reader.read()
    writer.close()
    if not answer:
        return None
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found is not None
    return int(found[1])


@ON_SQLITE
@pytest.mark.parametrize("value", RAW.values(), ids=RAW.keys())
async def test_a_header_that_holds_anything_is_4xx(still_product, value):
    account = await still_product.account(credits=1)
    status = await raw_status(still_product, value.replace(b"%b", account.key.encode()))
    assert status is not None
    assert 400 <= status < 500
    assert await still_product.messages(account.id) == []


@ON_SQLITE
async def test_control_the_same_request_with_the_key_alone_is_accepted(still_product):
    account = await still_product.account(credits=1)
    assert await raw_status(still_product, account.key.encode()) == 200


class OtherProcess:
    """What another process has of the same database: its own connections and its own memory of keys."""

    def __init__(self, database):
        clock = SystemClock()
        self.directory = AccessDirectory(database, accounts_store, clock)
        self.accounts = Accounts(database, LedgerCredits(), clock, self.directory.recheck)

    async def outcome(self, account):
        try:
            owner = await self.directory.account_of(digest_key(account.key))
        except ApiKeyDisabled:
            return 403
        except UnknownApiKey:
            return 401
        return 200 if owner == account.id else 500


@pytest.fixture
async def elsewhere(still_product):
    async with opened(still_product.target) as database:
        yield OtherProcess(database)


async def assert_both_say_in_time(product, elsewhere, account, status):
    """Fail unless the server and the other process come to a status within a second of real time, and stay."""
    began = time.monotonic()

    async def said():
        return (await post(product, account.key)).status_code, await elsewhere.outcome(account)

    async def both_say_it():
        return await said() == (status, status)

    await eventually(both_say_it, within_s=WITHIN_S, what=f"{status} from both")
    assert time.monotonic() - began < WITHIN_S
    assert await said() == (status, status)


async def test_a_key_that_the_server_takes_away_is_refused_within_a_second(still_product, elsewhere):
    account = await still_product.account(credits=1_000_000)
    keys, service = still_product.tcp.accounts, still_product.service
    # Both remember the key before it changes.
    await assert_both_say_in_time(still_product, elsewhere, account, 200)
    await keys.DisableApiKey(accounts_pb.DisableApiKeyRequest(api_key_id=account.key_id), metadata=service)
    assert (await post(still_product, account.key)).status_code == 403
    await assert_both_say_in_time(still_product, elsewhere, account, 403)
    await keys.EnableApiKey(accounts_pb.EnableApiKeyRequest(api_key_id=account.key_id), metadata=service)
    assert (await post(still_product, account.key)).status_code == 200
    await assert_both_say_in_time(still_product, elsewhere, account, 200)
    await keys.DeleteApiKey(accounts_pb.DeleteApiKeyRequest(api_key_id=account.key_id), metadata=service)
    assert (await post(still_product, account.key)).status_code == 401
    await assert_both_say_in_time(still_product, elsewhere, account, 401)


async def test_a_key_that_another_process_takes_away_is_refused_within_a_second(still_product, elsewhere):
    account = await still_product.account(credits=1_000_000)
    await assert_both_say_in_time(still_product, elsewhere, account, 200)
    await elsewhere.accounts.set_key_enabled(account.key_id, enabled=False)
    await assert_both_say_in_time(still_product, elsewhere, account, 403)
    await elsewhere.accounts.set_key_enabled(account.key_id, enabled=True)
    await assert_both_say_in_time(still_product, elsewhere, account, 200)
    await elsewhere.accounts.delete_key(account.key_id)
    await assert_both_say_in_time(still_product, elsewhere, account, 401)


async def test_control_a_memory_that_nothing_empties_is_caught(still_product, elsewhere, monkeypatch):
    account = await still_product.account(credits=1_000_000)
    await assert_both_say_in_time(still_product, elsewhere, account, 200)

    async def version_that_never_changes(tx):
        return elsewhere.directory._version

    monkeypatch.setattr(accounts_store, "access_version", version_that_never_changes)
    await elsewhere.accounts.set_key_enabled(account.key_id, enabled=False)
    with pytest.raises(AssertionError, match="did not come true"):
        await assert_both_say_in_time(still_product, elsewhere, account, 403)
