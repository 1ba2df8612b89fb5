"""hydrasms.carriers.v1.SimulatorService."""

from hydrasms.carriers.v1 import simulator_service_pb2 as pb
from hydrasms.carriers.v1 import simulator_service_pb2_grpc
from hydrasms_core.carriers.simulator import wire
from hydrasms_core.carriers.simulator.inbox import Inbox
from hydrasms_core.db.transaction import Database
from hydrasms_core.rpc.interceptors import Context


class SimulatorServicer(simulator_service_pb2_grpc.SimulatorServiceServicer):
    """Unpacks requests, asks the inbox and packs answers."""

    def __init__(self, database: Database) -> None:
        self._inbox = Inbox(database)

    async def ListInbox(self, request: pb.ListInboxRequest, context: Context) -> pb.ListInboxResponse:
        """Return one page of what reached a simulated phone."""
        return wire.inbox(
            await self._inbox.list_texts(request.recipient, request.page_size, request.page_token)
        )
