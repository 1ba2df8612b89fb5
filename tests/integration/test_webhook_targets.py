"""What a webhook's URL, a name server or a receiver may do, no connection goes where none may go."""

import asyncio
import ipaddress

import aiohttp
import pytest

from hydrasms_base.clock import SystemClock
from hydrasms_base.networks import networks
from hydrasms_core.webhooks.addresses import Guard, RefusedTarget, target_of
from hydrasms_core.webhooks.connector import Connector
from hydrasms_core.webhooks.ports import Answered, Refusal, Unanswered
from tests.support.receivers import FakeNames, answering, canary_on_every_address, receiving
from tests.support.targets import NAMES, URLS

THIS_HOST = networks("0.0.0.0/8, 127.0.0.0/8, ::/96")
LOOPBACK = networks("127.0.0.0/8, ::1/128")
PUBLIC = "8.8.8.8"
BODY = b"{}"


@pytest.fixture
async def canary():
    async with canary_on_every_address() as canary:
        yield canary


@pytest.fixture
async def connect():
    """Return what makes connectors, all closed at the end."""
    made = []

    def make(guard, names=None, budget_s=0.5):
        connector = Connector(
            guard,
            SystemClock(),
            names=names or FakeNames({name: [answer] for name, answer in NAMES.items()}),
            budget_s=budget_s,
        )
        made.append(connector)
        return connector

    yield make
    for connector in made:
        await connector.close()


def urls(port):
    return [url.format(port=port) for url in URLS] + [f"http://{name}:{port}/" for name in NAMES]


async def reached(connector, canary):
    """Post to every target and return those at which the canary was."""
    found = []
    for url in urls(canary.port):
        before = len(canary.reached)
        await connector.post(url, {}, BODY)
        if len(canary.reached) > before:
            found.append(url)
    return found


# ---- refused -------------------------------------------------------------------------------------------------


def test_there_are_enough_targets():
    assert len(set(URLS)) + len(NAMES) >= 80 + 40


async def test_no_target_is_ever_connected_to(connect, canary):
    connector = connect(Guard())
    for url in urls(canary.port):
        outcome = await connector.post(url, {}, BODY)
        assert isinstance(outcome, Unanswered), url
        assert outcome.refusal is Refusal.ADDRESS, (url, outcome)
        assert 0 < len(outcome.failure) <= 200
    assert canary.reached == []


async def test_the_canary_would_be_reached_where_this_host_is_allowed(connect, canary):
    assert len(await reached(connect(Guard(THIS_HOST)), canary)) >= 10


class IsGlobal(Guard):
    """The filter that one would write: what the standard library calls global."""

    def _permits(self, address, port):
        return address is not None and address.is_global


def test_the_standard_librarys_idea_of_global_lets_targets_through():
    let_through = set()
    for url in urls(80):
        try:
            address = target_of(url).address
            if address is not None:
                IsGlobal().require(str(address), 80)
                let_through.add(address)
        except RefusedTarget:
            continue
    assert len(let_through) >= 8
    assert all(not _permitted(address) for address in let_through)


def _permitted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        Guard().require(str(address), 80)
    except RefusedTarget:
        return False
    return True


async def test_our_own_ports_are_refused_on_this_host_whatever_is_allowed(connect, canary):
    own_ports: set[int] = set()
    connector = connect(Guard(THIS_HOST, own_ports))
    assert await reached(connector, canary)
    # The ports are told as they are taken.
    own_ports.add(canary.port)
    assert await reached(connector, canary) == []


# ---- names ---------------------------------------------------------------------------------------------------


async def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(connect, canary):
    names = FakeNames({"rebinding.example.com": [[PUBLIC], ["127.0.0.1"]]})
    outcome = await connect(Guard(), names).post(f"http://rebinding.example.com:{canary.port}/", {}, BODY)
    assert isinstance(outcome, Unanswered)
    assert outcome.refusal is not Refusal.ADDRESS
    assert names.asked == ["rebinding.example.com"]
    assert canary.reached == []


async def test_a_second_answer_is_checked_as_the_first_was(connect, canary):
    names = FakeNames({"rebinding.example.com": [[PUBLIC], ["127.0.0.1"]]})
    connector, url = connect(Guard(), names), f"http://rebinding.example.com:{canary.port}/"
    await connector.post(url, {}, BODY)
    second = await connector.post(url, {}, BODY)
    assert isinstance(second, Unanswered)
    assert second.refusal is Refusal.ADDRESS
    assert canary.reached == []


async def test_checking_a_name_before_a_client_looks_it_up_lets_rebinding_through(canary):
    """The control: two look-ups, of which only the first is checked."""
    names = FakeNames({"rebinding.example.com": [[PUBLIC], ["127.0.0.1"]]})
    Guard().require_all(await names.addresses("rebinding.example.com"), canary.port)

    class LooksAgain(aiohttp.abc.AbstractResolver):
        async def resolve(self, host, port=0, family=0):
            answer = await names.addresses(host)
            return [
                aiohttp.abc.ResolveResult(
                    hostname=host, host=answer[0], port=port, family=family, proto=0, flags=0
                )
            ]

        async def close(self):
            """Nothing is open."""

    connector = aiohttp.TCPConnector(resolver=LooksAgain())
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post(f"http://rebinding.example.com:{canary.port}/") as response:
            assert await response.read() == b"secret"
    assert canary.reached


async def test_an_address_in_the_url_is_checked_again_at_its_socket(connect, canary, monkeypatch):
    """The HTTP client asks no resolver about such an address."""
    guard = Guard()
    connector = connect(guard)
    checked = []

    def only_at_the_socket(address, port):
        checked.append(address)
        if len(checked) > 1:
            raise RefusedTarget("no")

    monkeypatch.setattr(guard, "require", only_at_the_socket)
    outcome = await connector.post(f"http://127.0.0.1:{canary.port}/", {}, BODY)
    assert isinstance(outcome, Unanswered)
    assert outcome.refusal is Refusal.ADDRESS
    assert checked == ["127.0.0.1", "127.0.0.1"]
    assert canary.reached == []


async def test_a_name_with_many_addresses_has_us_try_only_a_few(connect):
    tried = []

    class Counting(Guard):
        def require(self, address, port):
            tried.append(address)
            raise RefusedTarget("no")

    names = FakeNames({"many.example.com": [[f"8.8.4.{last}" for last in range(200)]]})
    await connect(Counting(), names).post("http://many.example.com/", {}, BODY)
    assert len(set(tried)) <= 4


# ---- redirects, proxies, cookies -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(connect, canary, status):
    location = f"http://127.0.0.1:{canary.port}/latest/meta-data/"
    answer = f"HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    async with receiving(answering(answer)) as receiver:
        outcome = await connect(Guard(LOOPBACK)).post(receiver.url, {}, BODY)
        assert isinstance(outcome, Answered)
        assert outcome.status == status
        assert canary.reached == []
        # The control: a client that follows.
        async with aiohttp.ClientSession() as session, session.post(receiver.url) as response:
            assert await response.read() == b"secret"


async def test_no_proxy_is_taken_from_the_environment(connect, canary, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    monkeypatch.setenv("no_proxy", "")
    async with receiving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as receiver:
        outcome = await connect(Guard(LOOPBACK)).post(receiver.url, {}, BODY)
    assert isinstance(outcome, Answered)
    assert canary.reached == []


async def test_no_cookie_is_kept(connect):
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        while True:
            seen.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(len(BODY)))
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with receiving(handle) as receiver:
        connector = connect(Guard(LOOPBACK))
        for _ in range(2):
            assert isinstance(await connector.post(receiver.url, {"webhook-id": "x"}, BODY), Answered)
    assert len(seen) == 2
    assert not any(b"cookie" in request.lower() for request in seen)
    assert all(b"webhook-id: x" in request for request in seen)
