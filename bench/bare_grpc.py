"""What the channel benchmark divides by: a grpc.aio server whose SendMessage answers at once, always the same."""

import sys
from typing import Any

import grpc
import uvloop

from hydrasms.messaging.v1 import message_pb2, messaging_service_pb2_grpc
from hydrasms.messaging.v1 import messaging_service_pb2 as pb


class Echo(messaging_service_pb2_grpc.MessagingServiceServicer):
    """Answers a send with its own text."""

    async def SendMessage(self, request: pb.SendMessageRequest, context: Any) -> pb.SendMessageResponse:  # noqa: N802 - the proto's name
        """Answer as a real send is answered, without any of its work."""
        sent = message_pb2.Message(
            id="018f0000-0000-7000-8000-000000000000",
            account_id=request.account_id,
            sender="+2899682626",
            content=request.content,
            credits=1,
        )
        return pb.SendMessageResponse(message=sent)


def echo() -> messaging_service_pb2_grpc.MessagingServiceServicer:
    """Return a servicer of which nothing but SendMessage may be called."""
    return Echo()  # type: ignore[abstract]


async def serve(port: int) -> None:
    """Serve until the process is told to end."""
    server = grpc.aio.server()
    messaging_service_pb2_grpc.add_MessagingServiceServicer_to_server(echo(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
