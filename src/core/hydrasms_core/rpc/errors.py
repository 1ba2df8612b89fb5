"""Domain errors as gRPC statuses (google.rpc.Status with ErrorInfo, after AIP-193)."""

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from hydrasms_core.errors import DomainError, Kind

DOMAIN = "hydrasms"

_CODES: dict[Kind, int] = {kind: code_pb2.Code.Value(kind.name) for kind in Kind}


def to_status(error: DomainError) -> status_pb2.Status:
    """Return the status that tells a caller all about an error: one ErrorInfo, and a BadRequest and a
    RetryInfo where they say more.
    """
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details = [_packed(info)]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message, reason=error.reason
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=error.retry_after_s)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=_CODES[error.kind], message=error.message, details=details)


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: DomainError) -> NoReturn:
    """End a call with an error."""
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


def _packed(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed
