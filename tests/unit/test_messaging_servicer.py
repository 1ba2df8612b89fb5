"""The services of hydrasms.messaging.v1: what their servicers ask of the use cases, and what they answer."""

from typing import Any

import pytest

from hydrasms.messaging.v1 import forwarding_service_pb2 as forwarding_pb
from hydrasms.messaging.v1 import message_pb2
from hydrasms.messaging.v1 import messaging_service_pb2 as messaging_pb
from hydrasms_core import errors
from hydrasms_core.caller import Caller
from hydrasms_core.carriers.base import InboundText
from hydrasms_core.inbound.model import Outcome, Received
from hydrasms_core.messaging import model as messaging
from hydrasms_core.messaging.numbering import PhoneNumber
from hydrasms_core.messaging.servicer import ForwardingServicer, MessagingServicer
from hydrasms_core.messaging.text import Encoding
from hydrasms_core.paging import Page
from hydrasms_core.rpc.errors import to_status
from tests.support.servicers import ask

MESSAGING = messaging_pb.DESCRIPTOR.services_by_name["MessagingService"]
FORWARDING = forwarding_pb.DESCRIPTOR.services_by_name["ForwardingService"]
ALICE = Caller(account_id="alice")
SERVICE = Caller(account_id=None)
AT_MS = 1_780_049_700_007

MESSAGE = messaging.Message(
    id="m1",
    account_id="alice",
    sender="+2899682626",
    recipient=PhoneNumber("+447700900000", "GB", "GBR", 44),
    content="Grüße",
    status=messaging.Status.SUBMITTED,
    credits=2,
    encoding=Encoding.GSM7,
    segments=3,
    created_at_ms=AT_MS,
    updated_at_ms=AT_MS + 1,
    expires_at_ms=AT_MS + 2,
    carrier="simulator",
    attempts=4,
    duplicate_risk=True,
    failure="slow",
)


def ask_messaging(method: str, request: Any, who: Caller = ALICE, **answers: Any) -> tuple[Any, Any]:
    """Return what the service was asked and what the caller was answered."""
    return ask(
        MESSAGING, lambda service: MessagingServicer(service, service, service), method, request, who, answers
    )


@pytest.mark.parametrize(("who", "named", "actor"), [(ALICE, "", "account"), (SERVICE, "alice", "service")])
@pytest.mark.parametrize("key", [None, "", "k"])
def test_a_send_is_unpacked_and_its_message_packed(who, named, actor, key):
    asked, response = ask_messaging(
        "SendMessage",
        messaging_pb.SendMessageRequest(
            account_id=named, recipient="+447700900000", content="Grüße", idempotency_key=key
        ),
        who,
        send=messaging.Accepted(MESSAGE, replayed=True),
    )
    assert asked == ("send", "alice", messaging.Draft("+447700900000", "Grüße", key), ("actor", actor))
    assert response.idempotent_replayed
    message = response.message
    assert (message.id, message.account_id, message.sender) == ("m1", "alice", "+2899682626")
    assert (message.content, message.credits, message.segments, message.attempts) == ("Grüße", 2, 3, 4)
    assert (message.status, message.encoding) == (
        message_pb2.MESSAGE_STATUS_SUBMITTED,
        message_pb2.ENCODING_GSM7,
    )
    assert (message.carrier, message.duplicate_risk, message.failure) == ("simulator", True, "slow")
    number = message.recipient
    assert (number.e164, number.country_iso2, number.country_iso3, number.calling_code) == (
        "+447700900000",
        "GB",
        "GBR",
        44,
    )
    times = (message.created_at, message.updated_at, message.expires_at)
    assert [time.ToMilliseconds() for time in times] == [AT_MS, AT_MS + 1, AT_MS + 2]


@pytest.mark.parametrize("status", list(messaging.Status))
def test_every_status_has_its_word_on_the_wire(status):
    _, response = ask_messaging(
        "GetMessage", messaging_pb.GetMessageRequest(message_id="m1"), get=MESSAGE._replace(status=status)
    )
    assert message_pb2.MessageStatus.Name(response.message.status) == f"MESSAGE_STATUS_{status.name}"


def test_a_batch_keeps_the_order_of_its_items_and_packs_each_outcome():
    drafts = [messaging.Draft("+1", "a"), messaging.Draft("+2", "", "k")]
    asked, response = ask_messaging(
        "BatchSendMessages",
        messaging_pb.BatchSendMessagesRequest(
            items=[
                messaging_pb.BatchSendMessagesItem(recipient="+1", content="a"),
                messaging_pb.BatchSendMessagesItem(recipient="+2", idempotency_key="k"),
            ]
        ),
        send_batch=[
            messaging.Accepted(MESSAGE, replayed=False),
            errors.InvalidContent("no", field="content"),
        ],
    )
    assert asked == ("send_batch", "alice", drafts, ("actor", "account"))
    accepted, refused = response.results
    assert (accepted.WhichOneof("outcome"), accepted.accepted.message.id) == ("accepted", "m1")
    assert (refused.WhichOneof("outcome"), refused.refused.code) == ("refused", 3)


@pytest.mark.parametrize("key", [None, "", "k"])
@pytest.mark.parametrize("replayed", [False, True])
def test_what_an_edge_passes_on_is_unpacked_and_each_outcome_packed_as_a_single_calls(key, replayed):
    refusal = errors.InsufficientCredits(2, 3)
    asked, response = ask(
        FORWARDING,
        ForwardingServicer,
        "ForwardSends",
        forwarding_pb.ForwardSendsRequest(
            items=[
                forwarding_pb.ForwardedSend(
                    key_digest="d1",
                    request_id="r-1",
                    recipient="+1",
                    content="Grüße",
                    idempotency_key=key,
                    timeout_ms=9_999,
                ),
                forwarding_pb.ForwardedSend(key_digest="d2", request_id="r-2"),
            ]
        ),
        SERVICE,
        {"send_each": [messaging.Accepted(MESSAGE, replayed=replayed), refusal]},
    )
    assert asked == (
        "send_each",
        [
            messaging.Forwarded("d1", "r-1", messaging.Draft("+1", "Grüße", key), 9_999),
            messaging.Forwarded("d2", "r-2", messaging.Draft("", ""), 0),
        ],
    )
    accepted, refused = response.results
    _, single = ask_messaging(
        "SendMessage",
        messaging_pb.SendMessageRequest(),
        send=messaging.Accepted(MESSAGE, replayed=replayed),
    )
    assert accepted.accepted == single
    assert accepted.accepted.SerializeToString(deterministic=True) == single.SerializeToString(
        deterministic=True
    )
    assert refused.refused == to_status(refusal)


def test_an_estimate_is_packed_with_the_character_and_without():
    request = messaging_pb.EstimateMessageRequest(content="ж")
    asked, response = ask_messaging(
        "EstimateMessage", request, estimate=messaging.Estimate(1, Encoding.UCS2, 2, 71, 0, "ж")
    )
    assert asked == ("estimate", "alice", "ж")
    assert response == messaging_pb.EstimateMessageResponse(
        credits=1,
        encoding=message_pb2.ENCODING_UCS2,
        segments=2,
        units=71,
        non_gsm_index=0,
        non_gsm_character="ж",
    )
    _, response = ask_messaging(
        "EstimateMessage", request, estimate=messaging.Estimate(1, Encoding.GSM7, 1, 5, None, "")
    )
    assert not response.HasField("non_gsm_index")


@pytest.mark.parametrize(("who", "named"), [(ALICE, ""), (ALICE, "alice"), (SERVICE, "alice")])
def test_reading_and_taking_back_name_account_and_message(who, named):
    request = messaging_pb.GetMessageRequest(account_id=named, message_id="m1")
    asked, response = ask_messaging("GetMessage", request, who, get=MESSAGE)
    assert asked == ("get", "alice", "m1")
    assert response.message.id == "m1"
    asked, response = ask_messaging(
        "CancelMessage",
        messaging_pb.CancelMessageRequest(account_id=named, message_id="m1"),
        who,
        cancel=MESSAGE,
    )
    assert asked == ("cancel", "alice", "m1", ("actor", who.actor))
    assert response.message.id == "m1"


def test_lists_of_messages_are_asked_for_by_page_and_packed_with_the_next_token():
    asked, response = ask_messaging(
        "ListMessages",
        messaging_pb.ListMessagesRequest(page_size=7, page_token="here"),
        list_sent=Page([MESSAGE], "there"),
    )
    assert asked == ("list_sent", "alice", 7, "here")
    assert ([each.id for each in response.messages], response.next_page_token) == (["m1"], "there")
    arrived = [
        messaging.InboundMessage("i1", "alice", "84433", "order", "x", 200, AT_MS),
        messaging.InboundMessage("i2", "", "+1", "none", "", None, AT_MS),
    ]
    asked, response = ask_messaging(
        "ListInboundMessages",
        messaging_pb.ListInboundMessagesRequest(page_size=7, page_token="here"),
        list_inbound=Page(arrived, ""),
    )
    assert asked == ("list_inbound", "alice", 7, "here")
    first, second = response.messages
    assert (first.id, first.account_id, first.sender, first.shortcode, first.content) == (
        "i1",
        "alice",
        "84433",
        "order",
        "x",
    )
    assert (first.webhook_status, first.created_at.ToMilliseconds()) == (200, AT_MS)
    assert not second.HasField("webhook_status")


# ---- texts from phones -----------------------------------------------------------------------------------------

TEXT = messaging.InboundMessage("i1", "alice", "+447700900000", "order", "large", None, AT_MS)


@pytest.mark.parametrize(
    ("received_at", "at_ms"), [(None, 0), ("2026-05-29T10:15:00.007999Z", 1_780_049_700_007)]
)
def test_a_text_is_unpacked_and_what_became_of_it_packed(received_at, at_ms):
    request = messaging_pb.ReceiveInboundRequest(
        carrier="c", carrier_message_id="r", sender="+447700900000", text="order large"
    )
    if received_at:
        request.received_at.FromJsonString(received_at)
    asked, response = ask_messaging(
        "ReceiveInbound", request, SERVICE, receive=Received(TEXT, Outcome.OPTED_OUT, duplicate=True)
    )
    assert asked == ("receive", InboundText("c", "r", "+447700900000", "order large", at_ms))
    assert (response.outcome, response.duplicate) == (messaging_pb.INBOUND_OUTCOME_OPTED_OUT, True)
    assert (response.message.id, response.message.account_id, response.message.content) == (
        "i1",
        "alice",
        "large",
    )
    assert not response.message.HasField("webhook_status")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_word_on_the_wire(outcome):
    _, response = ask_messaging(
        "ReceiveInbound",
        messaging_pb.ReceiveInboundRequest(),
        SERVICE,
        receive=Received(TEXT, outcome, duplicate=False),
    )
    assert messaging_pb.InboundOutcome.Name(response.outcome) == f"INBOUND_OUTCOME_{outcome.name}"


def test_texts_of_nobodys_are_listed_and_given_away():
    asked, response = ask_messaging(
        "ListUnownedInboundMessages",
        messaging_pb.ListUnownedInboundMessagesRequest(page_size=7, page_token="x"),
        SERVICE,
        list_unowned=Page([TEXT], "next"),
    )
    assert asked == ("list_unowned", 7, "x")
    assert ([each.id for each in response.messages], response.next_page_token) == (["i1"], "next")
    asked, response = ask_messaging(
        "AssignInboundMessage",
        messaging_pb.AssignInboundMessageRequest(inbound_message_id="i1", account_id="alice"),
        SERVICE,
        assign=TEXT,
    )
    assert asked == ("assign", "i1", "alice")
    assert response.message.shortcode == "order"
