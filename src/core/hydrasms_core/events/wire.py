"""Events as protobuf."""

from hydrasms.messaging.v1 import event_pb2, message_pb2, messaging_service_pb2
from hydrasms_core.events.model import Event, EventPage, EventQuery, EventType, cursor
from hydrasms_core.messaging.wire import inbound_message
from hydrasms_core.rpc.wire import timestamp

_TYPES = {kind: event_pb2.EventType.Value(f"EVENT_TYPE_{kind.name}") for kind in EventType}


def query(request: messaging_service_pb2.ListEventsRequest) -> EventQuery:
    """Return which events a caller asks for; raises InvalidArgument."""
    return EventQuery(request.after, request.wait_ms, request.page_size, request.from_now)


def listed(page: EventPage) -> messaging_service_pb2.ListEventsResponse:
    """Return the answer to a list of events."""
    return messaging_service_pb2.ListEventsResponse(
        events=[_event(event) for event in page.events], next_after=cursor(page.next_place)
    )


def _event(event: Event) -> event_pb2.Event:
    packed = event_pb2.Event(
        id=cursor(event.place),
        account_id=event.account_id,
        type=_TYPES[event.type],
        created_at=timestamp(event.created_at_ms),
    )
    detail = event.detail
    if event.inbound is not None:
        packed.inbound_message.CopyFrom(inbound_message(event.inbound))
    elif event.type is EventType.MESSAGE_STATUS_CHANGED:
        packed.message_status.message_id = event.subject_id
        packed.message_status.status = message_pb2.MessageStatus.Value(
            f"MESSAGE_STATUS_{str(detail['status']).upper()}"
        )
        packed.message_status.refunded = bool(detail["refunded"])
        packed.message_status.failure = str(detail["failure"])
    elif event.type is EventType.WEBHOOK_DISABLED:
        packed.webhook_disabled.endpoint_id = event.subject_id
        packed.webhook_disabled.reason = str(detail.get("reason", ""))
    elif event.type in (EventType.SHORTCODE_DEACTIVATED, EventType.SHORTCODE_REACTIVATED):
        packed.shortcode = event.subject_id
    return packed
