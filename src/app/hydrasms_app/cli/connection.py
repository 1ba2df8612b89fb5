"""The way to the core: address, service token, channel, and one call over it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from hydrasms.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from hydrasms.billing.v1.billing_service_pb2_grpc import BillingServiceStub
from hydrasms.carriers.v1.simulator_service_pb2_grpc import SimulatorServiceStub
from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub
from hydrasms_app.channel import channel_options
from hydrasms_app.cli.failures import unanswered, unfinished
from hydrasms_app.core_address import parse_core_address
from hydrasms_app.problems import Problem
from hydrasms_base.ids import new_id
from hydrasms_base.secret import Secret

CONNECT_S = 3.0
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
    # But for this one: the repeat of a deletion that was done would find nothing to delete.
    {"name": [{"service": "hydrasms.accounts.v1.AccountService", "method": "DeleteApiKey"}]},
)

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Core:
    """A core that can be called, by the stub of each of its services."""

    address: str
    token: Secret
    token_file: Path
    accounts: AccountServiceStub
    billing: BillingServiceStub
    messaging: MessagingServiceStub
    simulator: SimulatorServiceStub

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
        metadata = (("authorization", f"Bearer {self.token.reveal()}"), ("x-request-id", request_id))
        try:
            return method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise unfinished(
                error,
                address=self.address,
                token_file=self.token_file,
                request_id=request_id,
                timeout_s=timeout_s,
                repeat_with=repeat_with,
            ) from None


@contextlib.contextmanager
def connect() -> Iterator[Core]:
    """Connect to the core that the settings name; raises Problem where there is none or no token for it."""
    # Settings are slow to import, and what only asks for help needs none.
    from hydrasms_app.settings import load_settings

    settings = load_settings()
    address = parse_core_address(settings.core)
    address.require_secrecy()
    token = _read_token(settings.token_file)
    with grpc.insecure_channel(address.target, options=channel_options(_RETRIES)) as channel:
        _wait_for(channel, address.text)
        yield Core(
            address.text,
            token,
            settings.token_file,
            AccountServiceStub(channel),
            BillingServiceStub(channel),
            MessagingServiceStub(channel),
            SimulatorServiceStub(channel),
        )


def new_idempotency_key() -> str:
    """Return a key that makes the repeats of one command's call safe."""
    return f"cli-{new_id()}"


def _wait_for(channel: grpc.Channel, address: str) -> None:
    # grpc.channel_ready_future would do, but for the 0.2 s that closing a channel then takes.
    health: Any = HealthStub(channel)  # its published types lack its methods
    try:
        health.Check(HealthCheckRequest(), timeout=CONNECT_S, wait_for_ready=True)
    except grpc.RpcError as error:
        # Any other status shows that somebody is there; the call itself then says what is wrong.
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise unanswered(address) from None


def _read_token(path: Path) -> Secret:
    """Return the first service token of a file; it may hold several, one a line."""
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError as error:
        raise _unreadable(path, error.strerror or "unreadable") from None
    except UnicodeDecodeError:
        raise _unreadable(path, "it holds something else") from None
    if not words or not words[0].isprintable():
        raise _unreadable(path, "it holds something else" if words else "it is empty")
    return Secret(words[0])


def _unreadable(path: Path, why: str) -> Problem:
    return Problem(
        f"cannot read the service token {path}: {why}. `hydrasms serve` makes it in its data directory: "
        "name that with HYDRASMS_DATA_DIR, or the file with HYDRASMS_TOKEN_FILE"
    )
