"""Failed calls as REST clients see them."""

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from hydrasms.errors.v1 import error_reason_pb2
from hydrasms_core.errors import (
    DomainError,
    IdempotencyMismatch,
    InsufficientCredits,
    InvalidServiceToken,
    Kind,
    NotFound,
    Overloaded,
)
from hydrasms_core.rpc.errors import to_status
from hydrasms_edge.errors import HTTP_STATUS, ApiError, from_core, present
from hydrasms_edge.scope import REQUEST_ID
from tests.support.edge import edge_over_a_socket, make_edge

REASONS = [
    name.removeprefix("ERROR_REASON_") for name, number in error_reason_pb2.ErrorReason.items() if number
]
DETAILS = "grpc-status-details-bin"


def failed(code, *trailing, details="a secret detail"):
    return AioRpcError(code, Metadata(), Metadata(*trailing), details)


def refused(error: DomainError):
    status = to_status(error)
    return failed(
        grpc.StatusCode[error.kind.name], (DETAILS, status.SerializeToString()), details=status.message
    )


def refused_with(reason, *, domain="hydrasms", code=grpc.StatusCode.INTERNAL, retry=None, **metadata):
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="The core's words.")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata))
    if retry is not None:
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=retry))
    return failed(code, (DETAILS, status.SerializeToString()), details=status.message)


# ---- by reason -------------------------------------------------------------------------------------------

CONTRACT = {
    400: {
        "INVALID_BODY",
        "INVALID_IDEMPOTENCY_KEY",
        "INVALID_RECIPIENT",
        "INVALID_CONTENT",
        "INSUFFICIENT_CREDITS",
    },
    401: {"MISSING_API_KEY", "UNKNOWN_API_KEY"},
    403: {
        "API_KEY_DISABLED",
        "SENDING_NOT_ENABLED",
        "ACCOUNT_SUSPENDED",
        "DESTINATION_NOT_ALLOWED",
        "RECIPIENT_OPTED_OUT",
    },
    404: {"NO_MESSAGES", "NOT_FOUND"},
    405: {"METHOD_NOT_ALLOWED"},
    409: {"IDEMPOTENCY_MISMATCH", "IDEMPOTENCY_IN_PROGRESS"},
    413: {"BODY_TOO_LARGE"},
    415: {"UNSUPPORTED_MEDIA_TYPE"},
    429: {"RATE_LIMITED"},
    500: {"INTERNAL"},
    503: {"UNAVAILABLE"},
    504: {"DEADLINE_EXCEEDED"},
}


def test_every_reason_has_a_status_and_nothing_else_has():
    assert set(HTTP_STATUS) == set(REASONS)


@pytest.mark.parametrize("status", CONTRACT)
def test_the_reasons_of_the_contract_have_its_statuses(status):
    assert {HTTP_STATUS[reason] for reason in CONTRACT[status]} == {status}


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != "INVALID_SERVICE_TOKEN"])
def test_a_reason_of_the_core_decides_status_and_code_whatever_its_grpc_code(reason):
    shown = from_core(refused_with(reason, balance="1", credit_cost="2"))
    assert (shown.status, shown.reason) == (HTTP_STATUS[reason], reason)
    if reason not in ("INTERNAL", "UNIMPLEMENTED"):
        assert shown.message == "The core's words."


def test_a_reason_that_only_a_newer_core_knows_is_passed_on_with_the_status_of_its_grpc_code():
    shown = from_core(refused_with("MOON_IN_THE_WAY", code=grpc.StatusCode.FAILED_PRECONDITION))
    assert (shown.status, shown.reason, shown.message) == (400, "MOON_IN_THE_WAY", "The core's words.")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("message"), 404),
        (IdempotencyMismatch(), 409),
        (InsufficientCredits(1, 2), 400),
        (Overloaded(), 503),
    ],
)
def test_the_words_of_the_core_are_kept(error, status):
    shown = from_core(refused(error))
    assert (shown.status, shown.reason, shown.message) == (status, error.reason, error.message)


def test_a_refusal_for_want_of_credits_tells_the_figures_as_numbers():
    assert from_core(refused(InsufficientCredits(7, 9))).extra == {"balance": 7, "creditCost": 9}


def test_the_metadata_of_other_errors_is_not_shown():
    assert from_core(refused(NotFound("message"))).extra == {}


def test_that_the_edges_own_credential_is_refused_is_unavailable_and_says_nothing_about_tokens():
    shown = from_core(refused(InvalidServiceToken("Send the service token; it lies in service.token.")))
    assert (shown.status, shown.reason, shown.retry_after_s) == (503, "UNAVAILABLE", 1)
    assert "token" not in shown.message


def test_an_internal_error_has_no_detail():
    for error in (
        refused_with("INTERNAL"),
        failed(grpc.StatusCode.INTERNAL),
        failed(grpc.StatusCode.UNKNOWN),
    ):
        shown = from_core(error)
        assert (shown.status, shown.reason) == (500, "INTERNAL")
        assert shown.message == "Internal error. The log has more under this request's id."


# ---- by code ---------------------------------------------------------------------------------------------

BY_CODE = {
    "CANCELLED": 503,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 503,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_code_without_a_reason_has_a_status_a_known_reason_and_words_of_ours(code):
    shown = from_core(failed(code))
    assert shown.status == BY_CODE[code.name]
    assert HTTP_STATUS[shown.reason] == shown.status
    assert "secret" not in shown.message
    assert shown.message


def test_every_kind_of_the_core_has_a_status():
    assert {kind.name for kind in Kind} <= set(BY_CODE)


@pytest.mark.parametrize(
    "trailing",
    [
        (DETAILS, b"\xff\xff not a status"),
        (DETAILS, b""),
        ("other-bin", status_pb2.Status(message="x").SerializeToString()),
    ],
)
def test_details_that_are_not_ours_are_passed_over(trailing):
    shown = from_core(failed(grpc.StatusCode.NOT_FOUND, trailing))
    assert (shown.status, shown.reason) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("reason", "domain"), [("UNKNOWN_API_KEY", "googleapis.com"), ("", "hydrasms")])
def test_a_reason_of_another_domain_is_passed_over(reason, domain):
    shown = from_core(refused_with(reason, domain=domain, code=grpc.StatusCode.PERMISSION_DENIED))
    assert (shown.status, shown.reason) == (403, "PERMISSION_DENIED")
    assert shown.message != "The core's words."


# ---- when to try again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RATE_LIMITED", "IDEMPOTENCY_IN_PROGRESS"]
)
def test_what_passes_says_when_to_try_again(reason):
    assert from_core(refused_with(reason)).retry_after_s == 1
    for seconds, nanos, expected in ((30, 0, 30), (30, 1, 31), (0, 5, 1), (0, 0, 1)):
        delay = duration_pb2.Duration(seconds=seconds, nanos=nanos)
        assert from_core(refused_with(reason, retry=delay)).retry_after_s == expected


def test_what_does_not_pass_says_nothing_of_the_sort():
    assert from_core(refused_with("INVALID_CONTENT")).retry_after_s is None


# ---- over the whole edge ---------------------------------------------------------------------------------


coalescing_or_not = pytest.mark.parametrize("coalesce", [False, True], ids=["unary", "coalescing"])


@coalescing_or_not
@pytest.mark.parametrize(
    ("code", "status"), [("UNAVAILABLE", 503), ("RESOURCE_EXHAUSTED", 429), ("ABORTED", 409)]
)
async def test_a_bare_status_of_the_core_is_shown(code, status, coalesce):
    async with edge_over_a_socket(coalesce=coalesce) as edge:

        async def refuse(context):
            await context.abort(grpc.StatusCode[code], "a secret detail")

        edge.core.instead = refuse
        reply = await edge.send()
        assert reply.status == status
        assert set(reply.json) == {"response", "code", "request_id"}
        assert "secret" not in reply.body.decode()
        assert ("retry-after" in reply.headers) == (status != 409)


async def assert_too_slow_is_504(edge):
    async def hang(context):
        await asyncio.Event().wait()

    edge.core.instead = hang
    reply = await edge.send()
    assert (reply.status, reply.json["code"]) == (504, "DEADLINE_EXCEEDED")
    assert reply.headers["retry-after"] == "1"


async def test_a_core_in_memory_that_is_too_slow_is_504():
    await assert_too_slow_is_504(make_edge(deadline_s=0.05))


@coalescing_or_not
async def test_a_core_behind_a_socket_that_is_too_slow_is_504(coalesce):
    async with edge_over_a_socket(deadline_s=0.2, coalesce=coalesce) as edge:
        await assert_too_slow_is_504(edge)


def test_every_refusal_is_presented_under_its_request_id():
    shown = present(ApiError("METHOD_NOT_ALLOWED", "No.", allow="GET"), {"type": "http", REQUEST_ID: "r-1"})
    assert shown.body == b'{"response":"No.","code":"METHOD_NOT_ALLOWED","request_id":"r-1"}'
    assert (shown.status_code, shown.headers["allow"]) == (405, "GET")
