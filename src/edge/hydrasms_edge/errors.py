"""What goes wrong, as the REST contract shows it: the one place where a failure becomes an HTTP answer."""

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError
from starlette.types import Scope

from hydrasms_edge.answers import Answer
from hydrasms_edge.scope import request_id_of

DOMAIN = "hydrasms"

HTTP_STATUS: dict[str, int] = {
    "INVALID_BODY": 400,
    "INVALID_IDEMPOTENCY_KEY": 400,
    "INVALID_RECIPIENT": 400,
    "INVALID_CONTENT": 400,
    "INVALID_ARGUMENT": 400,
    "INVALID_PAGE_TOKEN": 400,
    "INSUFFICIENT_CREDITS": 400,
    "MISSING_API_KEY": 401,
    "UNKNOWN_API_KEY": 401,
    "API_KEY_DISABLED": 403,
    # The edge's own credential is at fault, so to its caller the service is out of order.
    "INVALID_SERVICE_TOKEN": 503,
    "PERMISSION_DENIED": 403,
    "SENDING_NOT_ENABLED": 403,
    "ACCOUNT_SUSPENDED": 403,
    "DESTINATION_NOT_ALLOWED": 403,
    "RECIPIENT_OPTED_OUT": 403,
    "NO_MESSAGES": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "ALREADY_EXISTS": 409,
    "NOT_CANCELLABLE": 400,
    "IDEMPOTENCY_MISMATCH": 409,
    "IDEMPOTENCY_IN_PROGRESS": 409,
    "BODY_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RATE_LIMITED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "UNIMPLEMENTED": 501,
    "SHORTCODE_RESERVED": 400,
    "SHORTCODE_LIMIT_REACHED": 400,
    "INVALID_WEBHOOK_URL": 400,
    "ALREADY_DELIVERED": 400,
}
"""The HTTP status of every reason of `hydrasms.errors.v1.ErrorReason`, without its prefix."""


class _Plain(NamedTuple):
    """How a status without a reason of ours is shown."""

    status: int
    reason: str


# The statuses are grpc-gateway's, but for two. CANCELLED is 499 there, "the client went away", yet ours is still
# waiting: it was the core that let go. UNAUTHENTICATED without a reason of ours comes from something in
# between that refuses the edge, not from a caller's API key.
_BY_CODE: dict[StatusCode, _Plain] = {
    StatusCode.CANCELLED: _Plain(503, "UNAVAILABLE"),
    StatusCode.UNKNOWN: _Plain(500, "INTERNAL"),
    StatusCode.INVALID_ARGUMENT: _Plain(400, "INVALID_ARGUMENT"),
    StatusCode.DEADLINE_EXCEEDED: _Plain(504, "DEADLINE_EXCEEDED"),
    StatusCode.NOT_FOUND: _Plain(404, "NOT_FOUND"),
    StatusCode.ALREADY_EXISTS: _Plain(409, "ALREADY_EXISTS"),
    StatusCode.PERMISSION_DENIED: _Plain(403, "PERMISSION_DENIED"),
    StatusCode.RESOURCE_EXHAUSTED: _Plain(429, "RATE_LIMITED"),
    StatusCode.FAILED_PRECONDITION: _Plain(400, "INVALID_ARGUMENT"),
    StatusCode.ABORTED: _Plain(409, "ALREADY_EXISTS"),
    StatusCode.OUT_OF_RANGE: _Plain(400, "INVALID_ARGUMENT"),
    StatusCode.UNIMPLEMENTED: _Plain(501, "UNIMPLEMENTED"),
    StatusCode.INTERNAL: _Plain(500, "INTERNAL"),
    StatusCode.UNAVAILABLE: _Plain(503, "UNAVAILABLE"),
    StatusCode.DATA_LOSS: _Plain(500, "INTERNAL"),
    StatusCode.UNAUTHENTICATED: _Plain(503, "INVALID_SERVICE_TOKEN"),
}

_RETRIED_AFTER_S = {"UNAVAILABLE": 1, "DEADLINE_EXCEEDED": 1, "RATE_LIMITED": 1, "IDEMPOTENCY_IN_PROGRESS": 1}

# What stands here is said in these words whatever the core says, which may be about its inner life.
_OWN_WORDS = {
    "INTERNAL": "Internal error. The log has more under this request's id.",
    "UNIMPLEMENTED": "This server cannot do that.",
}
_WORDS_WITHOUT_REASON = {
    "UNAVAILABLE": "The service cannot answer for now. Try again in a moment: with an Idempotency-Key that is safe.",
    "DEADLINE_EXCEEDED": "The answer did not come in time. Try again: with an Idempotency-Key that is safe.",
    "RATE_LIMITED": "Too much was asked for at once. Try again later.",
}


class ApiError(Exception):
    """A refusal as a REST client sees it.

    `reason` is a name of `HTTP_STATUS`, or one that a newer core knows, with `status` then given. `extra` is shown
    beside the three fields that every error has. No message holds a key, a number or a body.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: int | None = None,
        allow: str | None = None,
        extra: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message
        self.status = HTTP_STATUS[reason] if status is None else status
        self.retry_after_s = _RETRIED_AFTER_S.get(reason) if retry_after_s is None else retry_after_s
        self.allow = allow
        self.extra = dict(extra or {})


def internal_error() -> ApiError:
    """Return what a caller sees of a fault of ours."""
    return ApiError("INTERNAL", _OWN_WORDS["INTERNAL"])


def unavailable() -> ApiError:
    """Return what a caller sees while the service cannot answer."""
    return ApiError("UNAVAILABLE", _WORDS_WITHOUT_REASON["UNAVAILABLE"])


def core_reason(error: AioRpcError) -> str:
    """Return the reason that the core gave for a failed call, or the one that stands for its bare status code."""
    found = _details(error)
    return found.info.reason if found else _BY_CODE[error.code()].reason


def from_core(error: AioRpcError) -> ApiError:
    """Return a failed call as a REST client sees it: by its reason, else by its status code."""
    plain = _BY_CODE[error.code()]
    found = _details(error)
    if found is None:
        reason, status, message = plain.reason, plain.status, "The service refused the request."
        message = _WORDS_WITHOUT_REASON.get(reason, message)
    else:
        reason = found.info.reason
        status, message = HTTP_STATUS.get(reason, plain.status), found.message
    if reason == "INVALID_SERVICE_TOKEN":
        return unavailable()
    return ApiError(
        reason,
        _OWN_WORDS.get(reason, message),
        status=status,
        retry_after_s=found.retry_after_s if found else None,
        extra=_shown(reason, found.info.metadata) if found else None,
    )


def present(error: ApiError, scope: Scope) -> Answer:
    """Return the answer that shows an error."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.allow is not None:
        headers["allow"] = error.allow
    body = {"response": error.message, "code": error.reason, "request_id": request_id_of(scope)}
    return Answer(body | error.extra, error.status, headers)


class _Details(NamedTuple):
    """What the core tells about an error of its own."""

    info: error_details_pb2.ErrorInfo
    message: str
    retry_after_s: int | None


def _details(error: AioRpcError) -> _Details | None:
    """Return what the trailing google.rpc.Status says; None where there is none, or not one of our core's."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return _unpacked(status_pb2.Status.FromString(value))
            except DecodeError:
                return None
    return None


def _unpacked(status: status_pb2.Status) -> _Details | None:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            # HTTP knows whole seconds alone; coming back too early would be refused again.
            retry_after_s = max(1, retry.retry_delay.seconds + (retry.retry_delay.nanos > 0))
    if info.domain != DOMAIN or not info.reason:
        return None
    return _Details(info, status.message, retry_after_s)


def _shown(reason: str, metadata: Mapping[str, str]) -> dict[str, int]:
    if reason != "INSUFFICIENT_CREDITS":
        return {}
    return {"balance": int(metadata["balance"]), "creditCost": int(metadata["credit_cost"])}
