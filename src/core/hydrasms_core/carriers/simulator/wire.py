"""The simulator as protobuf."""

from hydrasms.carriers.v1 import simulator_service_pb2 as pb
from hydrasms_core.carriers.simulator.store import SimulatedText
from hydrasms_core.paging import Page
from hydrasms_core.rpc.wire import timestamp


def inbox(page: Page[SimulatedText]) -> pb.ListInboxResponse:
    """Return a page of a phone's texts."""
    return pb.ListInboxResponse(texts=[_text(row) for row in page.rows], next_page_token=page.next_token)


def _text(row: SimulatedText) -> pb.SimulatedText:
    return pb.SimulatedText(
        id=row.id,
        sender=row.sender,
        recipient=row.recipient,
        content=row.content,
        received_at=timestamp(row.received_at_ms),
    )
