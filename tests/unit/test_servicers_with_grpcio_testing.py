"""Every asynchronous servicer, run for real by grpcio-testing, passes on what its service says."""

import asyncio
import threading
from typing import Any

import grpc
import grpc_testing
import pytest
import structlog

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms.billing.v1 import billing_service_pb2 as billing_pb
from hydrasms.carriers.v1 import simulator_service_pb2 as simulator_pb
from hydrasms.messaging.v1 import messaging_service_pb2 as messaging_pb
from hydrasms.messaging.v1 import shortcode_service_pb2 as shortcodes_pb
from hydrasms_billing.servicer import BillingServicer
from hydrasms_core import errors
from hydrasms_core.accounts.servicer import AccountServicer
from hydrasms_core.caller import Caller
from hydrasms_core.carriers.simulator.servicer import SimulatorServicer
from hydrasms_core.messaging.servicer import MessagingServicer
from hydrasms_core.shortcodes.servicer import ShortcodeServicer
from tests.support.accounts import NoDatabase
from tests.support.servicers import Servicing, answer_of

MESSAGING = messaging_pb.DESCRIPTOR.services_by_name["MessagingService"]
BILLING = billing_pb.DESCRIPTOR.services_by_name["BillingService"]
ACCOUNTS = accounts_pb.DESCRIPTOR.services_by_name["AccountService"]
SHORTCODES = shortcodes_pb.DESCRIPTOR.services_by_name["ShortcodeService"]
SIMULATOR = simulator_pb.DESCRIPTOR.services_by_name["SimulatorService"]

ALICE = Caller(account_id="alice")
SERVICE = Caller(account_id=None)


class Refusing:
    """A service that refuses every use case."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> Any:
            raise errors.ApiKeyDisabled(f"refused in {name}")

        return refuse


def servicing(descriptor: Any, servicer: Any, who: Caller = ALICE) -> Servicing:
    return Servicing(descriptor, servicer, who=who)


# ---- the adapter ---------------------------------------------------------------------------------------------


class Failing:
    """A servicer that fails as soon as it runs."""

    def __init__(self):
        self.ran = threading.Event()

    async def ListInbox(self, request, context):
        self.ran.set()
        raise ZeroDivisionError("a secret detail")


def test_without_the_adapter_a_failing_servicer_is_ok_and_never_ran():
    """The trap itself: should it ever go away, so may the adapter."""
    failing = Failing()
    server = grpc_testing.server_from_dictionary({SIMULATOR: failing}, grpc_testing.strict_real_time())
    rpc = server.invoke_unary_unary(
        SIMULATOR.methods_by_name["ListInbox"], (), simulator_pb.ListInboxRequest(), None
    )
    response, _, code, _ = rpc.termination()
    response.close()
    assert code is grpc.StatusCode.OK
    assert not failing.ran.is_set()


def test_with_the_adapter_a_failing_servicer_runs_and_fails():
    failing = Failing()
    answer = Servicing(SIMULATOR, failing, interceptors=()).call("ListInbox", simulator_pb.ListInboxRequest())
    assert failing.ran.is_set()
    assert answer.code is grpc.StatusCode.UNKNOWN


def test_a_bug_is_shown_as_an_internal_error_without_its_detail():
    with structlog.testing.capture_logs() as logged:
        answer = Servicing(SIMULATOR, Failing()).call("ListInbox", simulator_pb.ListInboxRequest())
    assert (answer.code, answer.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in answer.details
    assert [line["event"] for line in logged] == ["internal_error"]


def test_a_servicer_that_is_not_asynchronous_is_no_servicer_of_ours():
    class Plain:
        def ListInbox(self, request, context):
            return simulator_pb.ListInboxResponse()

    with pytest.raises(TypeError, match="ListInbox"):
        Servicing(SIMULATOR, Plain())


def test_a_deadline_ends_the_call_and_stops_the_servicer_with_no_time_passing():
    entered, stopped = threading.Event(), threading.Event()

    class Hanging:
        async def ListInbox(self, request, context):
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    time = grpc_testing.strict_fake_time(0)
    rpc = Servicing(SIMULATOR, Hanging(), time=time).begin(
        "ListInbox", simulator_pb.ListInboxRequest(), timeout_s=3_600
    )
    assert entered.wait(10)
    time.sleep_for(3_599)
    assert not stopped.is_set()
    time.sleep_for(2)
    assert answer_of(rpc).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stopped.wait(10)


# ---- every servicer ------------------------------------------------------------------------------------------


class AwayDatabase(NoDatabase):
    """A database that refuses all work."""

    async def read(self, work):
        raise errors.ApiKeyDisabled("refused in read")


# An account's id is whom these are done to, not for; no API key may call them.
OPERATORS = {"AssignInboundMessage"}
REFUSING = [
    (MESSAGING, MessagingServicer(Refusing(), Refusing(), Refusing())),  # type: ignore[arg-type]
    (BILLING, BillingServicer(Refusing())),  # type: ignore[arg-type]
    (ACCOUNTS, AccountServicer(Refusing())),  # type: ignore[arg-type]
    (SHORTCODES, ShortcodeServicer(Refusing())),  # type: ignore[arg-type]
    (SIMULATOR, SimulatorServicer(AwayDatabase())),
]


@pytest.mark.parametrize(
    ("descriptor", "servicer", "method"),
    [
        pytest.param(descriptor, servicer, method, id=method.name)
        for descriptor, servicer in REFUSING
        for method in descriptor.methods
    ],
)
def test_every_rpc_passes_on_what_its_service_refuses(descriptor, servicer, method):
    request = getattr(messages_of(descriptor), method.input_type.name)()
    if descriptor is SIMULATOR:
        request.recipient = "+447700900000"
    answer = servicing(descriptor, servicer).call(method.name, request)
    assert (answer.code, answer.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "API_KEY_DISABLED")
    assert answer.details.startswith("refused in ")


def messages_of(descriptor: Any) -> Any:
    files = {
        MESSAGING: messaging_pb,
        BILLING: billing_pb,
        ACCOUNTS: accounts_pb,
        SHORTCODES: shortcodes_pb,
        SIMULATOR: simulator_pb,
    }
    return files[descriptor]


@pytest.mark.parametrize(
    ("error", "code", "fields"),
    [
        (errors.InvalidContent("no", field="content"), grpc.StatusCode.INVALID_ARGUMENT, ["content"]),
        (errors.InsufficientCredits(2, 3), grpc.StatusCode.FAILED_PRECONDITION, []),
        (errors.UnknownApiKey("no"), grpc.StatusCode.UNAUTHENTICATED, []),
        (errors.NotFound("message"), grpc.StatusCode.NOT_FOUND, []),
        (errors.AlreadyExists("no"), grpc.StatusCode.ALREADY_EXISTS, []),
        (errors.IdempotencyMismatch(), grpc.StatusCode.ALREADY_EXISTS, ["idempotency_key"]),
        (errors.StoreUnavailable(), grpc.StatusCode.UNAVAILABLE, []),
        (errors.DeadlinePassed("no"), grpc.StatusCode.DEADLINE_EXCEEDED, []),
    ],
)
def test_a_domain_error_becomes_a_status_with_all_that_it_says(error, code, fields):
    class Raising:
        async def get(self, account_id, message_id):
            raise error

    answer = servicing(MESSAGING, MessagingServicer(Raising(), Raising(), Raising())).call(  # type: ignore[arg-type]
        "GetMessage", messaging_pb.GetMessageRequest()
    )
    assert (answer.code, answer.details, answer.fields) == (code, error.message, fields)
    assert (answer.info.domain, answer.info.reason, dict(answer.info.metadata)) == (
        "hydrasms",
        error.reason,
        error.metadata,
    )
    assert answer.retry.retry_delay.seconds == (error.retry_after_s or 0)


@pytest.mark.parametrize(
    ("descriptor", "servicer", "method"),
    [
        pytest.param(descriptor, servicer, method, id=method.name)
        for descriptor, servicer in REFUSING
        for method in descriptor.methods
        if descriptor in (MESSAGING, BILLING, SHORTCODES)
        and "account_id" in method.input_type.fields_by_name
        and method.name not in OPERATORS
    ],
)
def test_every_rpc_of_an_account_is_for_the_callers_own_or_the_one_that_a_service_names(
    descriptor, servicer, method
):
    request_class = getattr(messages_of(descriptor), method.input_type.name)
    of_another = servicing(descriptor, servicer, ALICE).call(method.name, request_class(account_id="bob"))
    assert (of_another.code, dict(of_another.info.metadata)) == (
        grpc.StatusCode.NOT_FOUND,
        {"resource": "account"},
    )
    if method.name == "ListEvents":
        return  # A service that names no account follows all.
    of_nobody = servicing(descriptor, servicer, SERVICE).call(method.name, request_class())
    assert (of_nobody.code, of_nobody.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["account_id"])
