"""Send one message as an internal service would: over TCP, with the generated stub.

    python send.py ACCOUNT_ID +447700900000 "Hello from a service"

HYDRASMS_CORE names the core (127.0.0.1:50051 unless set) and HYDRASMS_TOKEN_FILE the file of the service token
(service.token in HYDRASMS_DATA_DIR, ./var unless set).
"""

import os
import sys
import uuid
from pathlib import Path
from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hydrasms.messaging.v1 import messaging_service_pb2, messaging_service_pb2_grpc

ATTEMPTS = 3


def main() -> int:
    """Send what the command line says and print the message's id."""
    account_id, recipient, content = sys.argv[1:]
    core = os.environ.get("HYDRASMS_CORE") or f"127.0.0.1:{os.environ.get('HYDRASMS_GRPC_PORT', '50051')}"
    token_file = Path(
        os.environ.get("HYDRASMS_TOKEN_FILE")
        or Path(os.environ.get("HYDRASMS_DATA_DIR", "var"), "service.token")
    )
    metadata = (("authorization", f"Bearer {token_file.read_text().strip()}"),)
    # The same key on every attempt: however often the request is repeated, it is sent and paid once.
    request = messaging_service_pb2.SendMessageRequest(
        account_id=account_id, recipient=recipient, content=content, idempotency_key=str(uuid.uuid4())
    )
    with grpc.insecure_channel(core) as channel:
        messaging = messaging_service_pb2_grpc.MessagingServiceStub(channel)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = messaging.SendMessage(request, metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                passing = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if passing and attempt < ATTEMPTS:
                    continue
                print(f"{reason(error)}: {error.details()}", file=sys.stderr)
                return 1
            print(f"{response.message.id} accepted for {response.message.credits} credit(s)")
            return 0
    return 1


def reason(error: grpc.RpcError) -> str:
    """Return the stable word for why a call was refused; see docs/errors.md."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return str(error.code().name)


if __name__ == "__main__":
    sys.exit(main())
