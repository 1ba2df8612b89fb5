"""ListEvents: what it asks the service for, and how each kind of event is packed."""

import pytest

from hydrasms.messaging.v1 import event_pb2, message_pb2
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms_core.caller import Caller
from hydrasms_core.events.model import Event, EventPage, EventQuery, EventType, Place, cursor, place_of
from hydrasms_core.messaging.model import InboundMessage, Status
from hydrasms_core.messaging.servicer import MessagingServicer
from tests.support.servicers import ask

MESSAGING = pb.DESCRIPTOR.services_by_name["MessagingService"]
PLACE = Place(7, "018f0000-0000-7000-8000-000000000001")
AT_MS = 1_780_049_700_007
TEXT = InboundMessage("i1", "alice", "+447700900000", "order", "large pepperoni", 200, AT_MS)
ALICE, SERVICE = Caller(account_id="alice"), Caller(account_id=None)


def event(kind, subject="s1", inbound=None, **detail):
    return Event(PLACE, "alice", kind, subject, detail, AT_MS, inbound)


def listed(*events, who=ALICE, **fields):
    page = EventPage(events, PLACE)
    return ask(
        MESSAGING,
        lambda service: MessagingServicer(service, service, service),
        "ListEvents",
        pb.ListEventsRequest(**fields),
        who,
        {"list_events": page},
    )


@pytest.mark.parametrize(
    ("who", "named", "account"), [(ALICE, "", "alice"), (SERVICE, "alice", "alice"), (SERVICE, "", None)]
)
def test_an_account_asks_for_its_own_and_a_service_for_one_or_all(who, named, account):
    asked, response = listed(who=who, account_id=named, after="x", wait_ms=5, page_size=6, from_now=True)
    use, its_account, query, (option, _) = asked
    assert (use, its_account, option) == ("list_events", account, "within_s")
    assert query == EventQuery("x", 5, 6, from_now=True)
    assert response == pb.ListEventsResponse(next_after=cursor(PLACE))


def test_every_type_has_a_name_in_the_proto_and_the_other_way_round():
    assert {f"EVENT_TYPE_{kind.name}" for kind in EventType} == set(event_pb2.EventType.keys()) - {
        "EVENT_TYPE_UNSPECIFIED"
    }
    assert all(kind.value == kind.name.lower() for kind in EventType)


def packed(value):
    _, response = listed(value)
    (found,) = response.events
    assert (found.id, found.account_id) == (cursor(PLACE), "alice")
    assert found.created_at.ToMilliseconds() == AT_MS
    assert found.type == event_pb2.EventType.Value(f"EVENT_TYPE_{value.type.name}")
    return found


@pytest.mark.parametrize(
    "kind", [EventType.INBOUND_RECEIVED, EventType.RECIPIENT_OPTED_OUT, EventType.RECIPIENT_OPTED_IN]
)
def test_what_a_phone_sent_is_packed_as_the_text(kind):
    text = packed(event(kind, inbound=TEXT)).inbound_message
    assert (text.id, text.account_id, text.sender, text.shortcode) == (
        "i1",
        "alice",
        "+447700900000",
        "order",
    )
    assert (text.content, text.webhook_status) == ("large pepperoni", 200)
    assert text.created_at.ToMilliseconds() == AT_MS
    assert packed(event(kind)).WhichOneof("subject") is None


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_packed_with_its_refund_and_failure(status):
    found = packed(
        event(EventType.MESSAGE_STATUS_CHANGED, status=status.value, refunded=True, failure="gone")
    )
    assert found.message_status == event_pb2.MessageStatusChange(
        message_id="s1",
        status=message_pb2.MessageStatus.Value(f"MESSAGE_STATUS_{status.name}"),
        refunded=True,
        failure="gone",
    )


def test_a_webhook_is_packed_with_the_reason():
    found = packed(event(EventType.WEBHOOK_DISABLED, reason="410"))
    assert found.webhook_disabled == event_pb2.WebhookDisabled(endpoint_id="s1", reason="410")


@pytest.mark.parametrize("kind", [EventType.SHORTCODE_DEACTIVATED, EventType.SHORTCODE_REACTIVATED])
def test_a_shortcode_is_packed_as_its_word(kind):
    assert packed(event(kind, "order")).shortcode == "order"


def test_a_cursor_says_where_it_stands_and_stands_in_a_header():
    text = cursor(PLACE)
    assert place_of(text) == PLACE
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
