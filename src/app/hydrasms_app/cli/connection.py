"""The way to the core: address, service token, channel, and one call over it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from hydrasms.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from hydrasms.billing.v1.billing_service_pb2_grpc import BillingServiceStub
from hydrasms.carriers.v1.simulator_service_pb2_grpc import SimulatorServiceStub
from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub
from hydrasms.messaging.v1.shortcode_service_pb2_grpc import ShortcodeServiceStub
from hydrasms.webhooks.v1.webhook_service_pb2_grpc import WebhookServiceStub
from hydrasms_app.cli.failures import unanswered, unfinished
from hydrasms_base.ids import new_id
from hydrasms_base.secret import Secret

if TYPE_CHECKING:
    from hydrasms_app.channel import Way

CONNECT_S = 5.0
"""How long a core may take to come up."""
CALL_S = 30.0
"""How long an ordinary call may take, its repeats included."""

_RETRIES: tuple[dict[str, Any], ...] = (
    {
        # Every call may be repeated: those that create something carry an idempotency key.
        "name": [{}],
        "retryPolicy": {
            "maxAttempts": 4,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    },
    # But for these: the repeat of a deletion that was done would find nothing to delete, and that of a new secret
    # would put another in its place, or not show it.
    {
        "name": [
            {"service": "hydrasms.accounts.v1.AccountService", "method": "DeleteApiKey"},
            {"service": "hydrasms.messaging.v1.ShortcodeService", "method": "DeleteShortcode"},
            {"service": "hydrasms.webhooks.v1.WebhookService", "method": "RotateSecret"},
            {"service": "hydrasms.webhooks.v1.WebhookService", "method": "SetAccountWebhook"},
        ]
    },
)

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Core:
    """A core that can be called, by the stub of each of its services."""

    address: str
    token: Secret | None
    """The service token; None where the certificate alone says who calls."""
    credential_file: Path | None
    """The file of what says who calls."""
    accounts: AccountServiceStub
    billing: BillingServiceStub
    messaging: MessagingServiceStub
    shortcodes: ShortcodeServiceStub
    simulator: SimulatorServiceStub
    webhooks: WebhookServiceStub

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout_s: float = CALL_S,
        repeat_with: str = "",
    ) -> Response:
        """Return the core's answer; raises Problem for everything else.

        `repeat_with` is what makes a repeat of the command safe; it is shown where nobody can tell whether the
        call was carried out.
        """
        request_id = new_id()
        metadata: tuple[tuple[str, str], ...] = (("x-request-id", request_id),)
        if self.token is not None:
            metadata = (*metadata, ("authorization", f"Bearer {self.token.reveal()}"))
        try:
            return method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise unfinished(
                error,
                address=self.address,
                credential=self._credential,
                request_id=request_id,
                timeout_s=timeout_s,
                repeat_with=repeat_with,
            ) from None

    @property
    def _credential(self) -> str:
        return f"the {'certificate' if self.token is None else 'service token of'} {self.credential_file}"


@contextlib.contextmanager
def connect() -> Iterator[Core]:
    """Connect to the core that the settings name; raises Problem where there is none or no token for it."""
    # Settings are slow to import, and what only asks for help needs none.
    from hydrasms_app.channel import way_to_core
    from hydrasms_app.settings import load_settings
    from hydrasms_app.token import callers_token

    settings = load_settings()
    way = way_to_core(settings, _RETRIES)
    token, address = callers_token(settings, way), way.address.text
    with _channel(way) as channel:
        _wait_for(channel, way)
        yield Core(
            address,
            token,
            settings.tls_cert if token is None else settings.token_file,
            AccountServiceStub(channel),
            BillingServiceStub(channel),
            MessagingServiceStub(channel),
            ShortcodeServiceStub(channel),
            SimulatorServiceStub(channel),
            WebhookServiceStub(channel),
        )


def new_idempotency_key() -> str:
    """Return a key that makes the repeats of one command's call safe."""
    return f"cli-{new_id()}"


def _channel(way: "Way") -> grpc.Channel:
    if way.credentials is None:
        return grpc.insecure_channel(way.address.target, options=way.options)
    return grpc.secure_channel(way.address.target, way.credentials, options=way.options)


def _wait_for(channel: grpc.Channel, way: "Way") -> None:
    # grpc.channel_ready_future would do, but for the 0.2 s that closing a channel then takes.
    health: Any = HealthStub(channel)  # its published types lack its methods
    try:
        health.Check(HealthCheckRequest(), timeout=CONNECT_S, wait_for_ready=True)
    except grpc.RpcError as error:
        # Any other status shows that somebody is there; the call itself then says what is wrong.
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise unanswered(way.address.text, over_tls=way.has_identity) from None
