"""The whole product in this process: every role, real ports, over a copy of the template database."""

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import httpx2
import structlog
from grpc_health.v1 import health_pb2_grpc
from pydantic import SecretStr

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms.accounts.v1 import account_service_pb2_grpc
from hydrasms.billing.v1 import billing_service_pb2 as billing_pb
from hydrasms.billing.v1 import billing_service_pb2_grpc
from hydrasms.carriers.v1 import simulator_service_pb2_grpc
from hydrasms.messaging.v1 import (
    forwarding_service_pb2_grpc,
    message_pb2,
    messaging_service_pb2_grpc,
    shortcode_service_pb2_grpc,
)
from hydrasms.messaging.v1 import messaging_service_pb2 as messaging_pb
from hydrasms.webhooks.v1 import webhook_service_pb2_grpc
from hydrasms_app.compose import Running, running, running_edge
from hydrasms_app.compose.listeners import Listener, TcpListener, UnixListener
from hydrasms_app.settings import Settings
from hydrasms_base.ids import new_id
from hydrasms_base.keys import digest_key
from hydrasms_core.messaging.model import InboundMessage
from tests.support.inbound_rows import insert_inbound
from tests.support.transports import channels_to, core_identity
from tests.support.waiting import eventually

PHONE = "+447700900000"
"""A simulated phone that gets every text at once."""

TIMEOUT_S = 30.0
_PAGE = 1_000
# As many as a test may want at once; each is a connection of its own.
_CONNECTIONS = 200

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TestAccount:
    """An account with one API key, as the test that made it knows it."""

    __test__ = False

    id: str
    key: str
    key_id: str

    @property
    def digest(self) -> str:
        """What stands for the key inside."""
        return digest_key(self.key)


class Stubs:
    """Every service behind one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.messaging: Any = messaging_service_pb2_grpc.MessagingServiceStub(channel)
        self.forwarding: Any = forwarding_service_pb2_grpc.ForwardingServiceStub(channel)
        self.billing: Any = billing_service_pb2_grpc.BillingServiceStub(channel)
        self.accounts: Any = account_service_pb2_grpc.AccountServiceStub(channel)
        self.shortcodes: Any = shortcode_service_pb2_grpc.ShortcodeServiceStub(channel)
        self.webhooks: Any = webhook_service_pb2_grpc.WebhookServiceStub(channel)
        self.simulator: Any = simulator_service_pb2_grpc.SimulatorServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


class Product:
    """A product that is up, and short words for what tests do with it."""

    def __init__(
        self,
        server: Running,
        http: httpx2.AsyncClient,
        channels: Mapping[str, grpc.aio.Channel],
        target: Path | str,
        data_dir: Path,
        split: httpx2.AsyncClient | None = None,
    ) -> None:
        self.server = server
        self.database = server.database
        self.target = target
        """Where its database is: a file, or a URL."""
        self.data_dir = data_dir
        self.http = http
        """A client of the REST API, over its real port."""
        self.split = split
        """A client of an edge that reaches this core over a Unix socket; in a product that is everywhere."""
        self.loopback = Stubs(server.channel)
        """The stubs over the channel in memory."""
        self.stubs = {
            "loopback": self.loopback,
            **{name: Stubs(channel) for name, channel in channels.items()},
        }
        """The stubs over each transport of `transports.TRANSPORTS` that the core listens on."""
        self.tcp = self.stubs["tcp"]
        """The same stubs over the core's real port."""

    @property
    def service(self) -> Metadata:
        """What an internal service sends beside its calls."""
        return (("authorization", f"Bearer {self.server.token.reveal()}"),)

    def with_key(self, key: str) -> Metadata:
        """What the edge sends beside a call for the holder of an API key."""
        return (*self.service, ("hydrasms-key-digest", digest_key(key)))

    async def account(
        self,
        *,
        credits: int = 0,
        plan: "accounts_pb.Plan.ValueType" = accounts_pb.PLAN_FREE,
        sending: bool = True,
        suspended: bool = False,
        name: str = "test",
    ) -> TestAccount:
        """Create an account with a key."""
        created = await self.loopback.accounts.CreateAccount(
            accounts_pb.CreateAccountRequest(
                name=name,
                plan=plan,
                sending_enabled=sending,
                initial_credits=credits,
                create_api_key=True,
            ),
            metadata=self.service,
            timeout=TIMEOUT_S,
        )
        if suspended:
            await self.loopback.accounts.UpdateAccount(
                accounts_pb.UpdateAccountRequest(account_id=created.account.id, suspended=True),
                metadata=self.service,
                timeout=TIMEOUT_S,
            )
        return TestAccount(created.account.id, created.api_key_secret, created.api_key.id)

    async def grant(self, account_id: str, amount: int) -> None:
        """Give an account credits."""
        await self.loopback.billing.GrantCredits(
            billing_pb.GrantCreditsRequest(account_id=account_id, amount=amount, reason="a test"),
            metadata=self.service,
            timeout=TIMEOUT_S,
        )

    async def balance(self, account_id: str) -> int:
        """Return an account's balance, in credits."""
        answer = await self.loopback.billing.GetBalance(
            billing_pb.GetBalanceRequest(account_id=account_id), metadata=self.service, timeout=TIMEOUT_S
        )
        return cast("int", answer.balance)

    async def send(
        self, account: TestAccount, content: str = "Hello", *, recipient: str = PHONE, key: str | None = None
    ) -> message_pb2.Message:
        """Send a message for an account."""
        sent = await self.loopback.messaging.SendMessage(
            messaging_pb.SendMessageRequest(recipient=recipient, content=content, idempotency_key=key),
            metadata=self.with_key(account.key),
            timeout=TIMEOUT_S,
        )
        return cast("message_pb2.Message", sent.message)

    async def post(
        self,
        account: TestAccount,
        content: str = "Hello",
        *,
        recipient: str = PHONE,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """POST a message as a REST client does, as JSON."""
        return await self.http.post(
            "/api/messages",
            headers={"Authorization": account.key, **(headers or {})},
            json={"recipient": recipient, "content": content},
        )

    async def messages(self, account_id: str) -> list[message_pb2.Message]:
        """Return all messages of an account, newest first."""
        found: list[message_pb2.Message] = []
        token = ""
        while True:
            page = await self.loopback.messaging.ListMessages(
                messaging_pb.ListMessagesRequest(account_id=account_id, page_size=_PAGE, page_token=token),
                metadata=self.service,
                timeout=TIMEOUT_S,
            )
            found += page.messages
            token = page.next_page_token
            if not token:
                return found

    async def transactions(self, account_id: str) -> list[billing_pb.Transaction]:
        """Return all transactions of an account, newest first."""
        found: list[billing_pb.Transaction] = []
        token = ""
        while True:
            page = await self.loopback.billing.ListTransactions(
                billing_pb.ListTransactionsRequest(account_id=account_id, page_size=_PAGE, page_token=token),
                metadata=self.service,
                timeout=TIMEOUT_S,
            )
            found += page.transactions
            token = page.next_page_token
            if not token:
                return found

    async def message(self, account_id: str, message_id: str) -> message_pb2.Message:
        """Return one message."""
        found = await self.loopback.messaging.GetMessage(
            messaging_pb.GetMessageRequest(account_id=account_id, message_id=message_id),
            metadata=self.service,
            timeout=TIMEOUT_S,
        )
        return cast("message_pb2.Message", found.message)

    async def receive(
        self,
        account_id: str,
        *,
        sender: str = PHONE,
        shortcode: str = "order",
        content: str = "",
        webhook_status: int | None = None,
        at_ms: int = 1_780_000_000_000,
    ) -> InboundMessage:
        """Store a message from a phone, as receiving one will."""
        inbound = InboundMessage(new_id(), account_id, sender, shortcode, content, webhook_status, at_ms)
        await self.database.write(lambda tx: insert_inbound(tx, inbound))
        return inbound


@contextlib.asynccontextmanager
async def product_in(
    data_dir: Path,
    target: Path | str,
    *,
    dispatcher: bool = True,
    everywhere: bool = False,
    **settings: Any,
) -> AsyncIterator[Product]:
    """Run the product on a database and a data directory; a second run finds there what the first has left.

    `everywhere` adds what takes a little longer: a Unix socket and TLS beside TCP, and a split edge.
    """
    chosen = _settings(data_dir, target, settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_quiet())
        listeners = _listeners(data_dir) if everywhere else None
        server = await stack.enter_async_context(running(chosen, dispatcher=dispatcher, listeners=listeners))
        channels = await stack.enter_async_context(channels_to(server.core_addresses))
        http = await stack.enter_async_context(client_of(server.http_port))
        split = None
        if everywhere:
            apart = chosen.model_copy(update={"core_address": server.core_addresses[1]})
            edge = await stack.enter_async_context(running_edge(apart))
            split = await stack.enter_async_context(client_of(edge.http_port))
            await eventually(lambda: _is_ready(split), what="a split edge that is ready")
        yield Product(server, http, channels, target, data_dir, split)
        if server.failure.done():
            # A loop of the product's that died is a failure of the test, whatever else it saw.
            server.failure.result()


def _listeners(data_dir: Path) -> list[Listener]:
    """Return a listener for each of `transports.SOCKETS`."""
    return [
        TcpListener("127.0.0.1", 0),
        UnixListener(data_dir / "core.sock"),
        TcpListener("127.0.0.1", 0, core_identity()),
    ]


def client_of(port: int) -> httpx2.AsyncClient:
    """Return a client of the REST API on a port."""
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        timeout=TIMEOUT_S,
        limits=httpx2.Limits(max_connections=_CONNECTIONS),
        # No proxy of the machine's stands between a test and the product.
        trust_env=False,
    )


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


def _settings(data_dir: Path, target: Path | str, settings: dict[str, Any]) -> Settings:
    data_dir.mkdir(parents=True, exist_ok=True)
    url = SecretStr(f"sqlite:///{target}" if isinstance(target, Path) else target)
    own = {"http_port": 0, "grpc_port": 0, "data_dir": data_dir, "database_url": url}
    return Settings(**{**own, **settings})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Log warnings and worse alone: a line for each call would be most of what a test spends."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        yield
    finally:
        structlog.configure(**before)
