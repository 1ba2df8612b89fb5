"""Calls that came to nothing, in an operator's words."""

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hydrasms_app.problems import Problem

_DOMAIN = "hydrasms"
_MAYBE_DONE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


def unanswered(address: str, *, over_tls: bool = False) -> Problem:
    """Say that nobody answers at an address."""
    doubt = (
        " there, with a certificate for that name from an authority that is trusted here" if over_tls else ""
    )
    return Problem(f"the core at {address} does not answer: is `hydrasms serve` running{doubt}?")


def unfinished(
    error: grpc.RpcError,
    *,
    address: str,
    credential: str,
    request_id: str,
    timeout_s: float,
    repeat_with: str,
) -> Problem:
    """Say why a call failed, with the reason that the core gave, where it gave one."""
    if not isinstance(error, grpc.Call):
        return unanswered(address)
    code, reason = error.code(), _reason(error)
    if reason == "INVALID_SERVICE_TOKEN":
        return Problem(
            f"the core at {address} does not accept {credential}: is it one of that core's? ({reason})"
        )
    if reason == "INTERNAL":
        text = f"{error.details()} ({reason}, request id {request_id})"
    elif reason:
        text = f"{error.details()} ({reason})"
    else:
        text = _without_reason(error, address, timeout_s)
    if repeat_with and code in _MAYBE_DONE:
        text = f"{text}; it may have been done all the same: to repeat it safely, add {repeat_with}"
    return Problem(text)


def _without_reason(error: grpc.Call, address: str, timeout_s: float) -> str:
    """Put a status in words that gRPC itself made, or a server that is not ours."""
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return str(unanswered(address))
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the core at {address} did not answer within {timeout_s:g} s"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"the core at {address} does not know this call: is it of another version?"
        case code:
            return f"the core at {address} answered {code.name}: {error.details()}"


def _reason(call: grpc.Call) -> str:
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        return ""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == _DOMAIN:
            return str(info.reason)
    return ""
