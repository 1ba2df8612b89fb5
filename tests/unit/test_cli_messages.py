"""`hydrasms messages` and `hydrasms simulate`."""

import pytest

from hydrasms.carriers.v1 import simulator_service_pb2
from hydrasms.messaging.v1 import message_pb2
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms_app.cli import simulate
from tests.support.fake_core import failure_of, json_of, run, running_core, text_of

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"
MESSAGE_ID = "018f0000-0000-7000-8000-0000000000c3"
PHONE = "+447700900000"
HOSTILE = "\x1b]0;owned\x07[red]bold[/red] :smile: é 🍕\nsecond line"
HARMLESS = "\\x1b]0;owned\\x07[red]bold[/red] :smile: é 🍕\\nsecond line"


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def message(**fields):
    made = message_pb2.Message(
        id=MESSAGE_ID,
        account_id=ACCOUNT_ID,
        sender="+2899682626",
        content="large pepperoni 🍕",
        status=message_pb2.MESSAGE_STATUS_DELIVERED,
        credits=2,
        encoding=message_pb2.ENCODING_UCS2,
        segments=3,
        carrier="simulator",
        attempts=1,
    )
    made.recipient.e164 = PHONE
    made.created_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.updated_at.FromJsonString("2026-05-29T10:15:01.5Z")
    made.MergeFrom(message_pb2.Message(**fields))
    return made


AS_JSON = {
    "id": MESSAGE_ID,
    "status": "delivered",
    "sender": "+2899682626",
    "recipient": PHONE,
    "content": "large pepperoni 🍕",
    "credits": 2,
    "encoding": "ucs2",
    "segments": 3,
    "carrier": "simulator",
    "attempts": 1,
    "duplicate_risk": False,
    "failure": "",
    "created_at": "2026-05-29T10:15:00.007Z",
    "updated_at": "2026-05-29T10:15:01.500Z",
}


def test_list_answers_messages_and_the_next_page(core):
    doubtful = message(duplicate_risk=True, failure="EXPIRED")
    core.answer(
        "ListMessages", pb.ListMessagesResponse(messages=[message(), doubtful], next_page_token="bmV4dA")
    )
    shown = json_of(
        run("messages", "list", ACCOUNT_ID, "--page-size", "2", "--page-token", "dGhpcw", "--json")
    )
    assert shown == {
        "messages": [AS_JSON, {**AS_JSON, "duplicate_risk": True, "failure": "EXPIRED"}],
        "next_page_token": "bmV4dA",
    }
    assert core.request == pb.ListMessagesRequest(account_id=ACCOUNT_ID, page_size=2, page_token="dGhpcw")


def test_list_is_a_table_for_people_with_a_line_a_message(core):
    core.answer("ListMessages", pb.ListMessagesResponse(messages=[message(content="x y " * 199)]))
    header, row = text_of(run("messages", "list", ACCOUNT_ID)).splitlines()
    assert header.split() == ["id", "created", "status", "recipient", "credits", "content"]
    assert row.split()[:5] == [MESSAGE_ID, "2026-05-29T10:15:00.007Z", "delivered", PHONE, "2"]
    assert row.endswith("x y " * 198 + "x y")


def test_a_page_of_the_longest_texts_fits(core):
    core.answer("ListMessages", pb.ListMessagesResponse(messages=[message(content="🍕" * 799)] * 1_000))
    shown = json_of(run("messages", "list", ACCOUNT_ID, "--page-size", "1000", "--json"))
    assert len(shown["messages"]) == 1_000
    assert shown["messages"][-1]["content"] == "🍕" * 799


@pytest.mark.parametrize("size", ["0", "-1", "1001", "all"])
def test_list_refuses_an_impossible_page_without_a_call(core, size):
    assert "--page-size" in failure_of(run("messages", "list", ACCOUNT_ID, "--page-size", size), status=2)
    assert core.calls == []


def test_show_answers_one_message(core):
    core.answer("GetMessage", pb.GetMessageResponse(message=message()))
    assert json_of(run("messages", "show", ACCOUNT_ID, MESSAGE_ID, "--json")) == AS_JSON
    assert core.request == pb.GetMessageRequest(account_id=ACCOUNT_ID, message_id=MESSAGE_ID)


def test_show_writes_a_line_a_field_and_nothing_that_steers_a_terminal(core):
    core.answer("GetMessage", pb.GetMessageResponse(message=message(content=HOSTILE)))
    lines = text_of(run("messages", "show", ACCOUNT_ID, MESSAGE_ID)).splitlines()
    assert len(lines) == len(AS_JSON)
    assert f"content         {HARMLESS}" in lines


def test_cancel_answers_the_message_as_it_is_now(core):
    cancelled = message(status=message_pb2.MESSAGE_STATUS_CANCELLED)
    core.answer("CancelMessage", pb.CancelMessageResponse(message=cancelled))
    shown = json_of(run("messages", "cancel", ACCOUNT_ID, MESSAGE_ID, "--json"))
    assert shown == {**AS_JSON, "status": "cancelled"}
    assert core.request == pb.CancelMessageRequest(account_id=ACCOUNT_ID, message_id=MESSAGE_ID)


def test_send_answers_the_accepted_message(core):
    core.answer("SendMessage", pb.SendMessageResponse(message=message()))
    shown = json_of(run("messages", "send", ACCOUNT_ID, "--to", PHONE, "large pepperoni 🍕", "--json"))
    assert shown == {**AS_JSON, "idempotent_replayed": False}
    request = core.request
    assert (request.account_id, request.recipient) == (ACCOUNT_ID, PHONE)
    assert request.content == "large pepperoni 🍕"


def test_every_send_has_an_idempotency_key_of_its_own(core):
    core.answer("SendMessage", pb.SendMessageResponse(message=message()))
    for _ in range(2):
        assert text_of(run("messages", "send", ACCOUNT_ID, "--to", PHONE, "Hello")) == (
            f"Accepted: {MESSAGE_ID}, 2 credits.\n"
        )
    keys = [call.request.idempotency_key for call in core.calls]
    assert all(keys)
    assert len(set(keys)) == 2


def test_send_takes_the_operators_idempotency_key_and_says_when_it_answered_again(core):
    core.answer("SendMessage", pb.SendMessageResponse(message=message(), idempotent_replayed=True))
    arguments = ["messages", "send", ACCOUNT_ID, "--to", PHONE, "Hello", "--idempotency-key", "k1"]
    assert text_of(run(*arguments)) == f"Accepted before: {MESSAGE_ID}, 2 credits.\n"
    assert json_of(run(*arguments, "--json"))["idempotent_replayed"] is True
    assert {call.request.idempotency_key for call in core.calls} == {"k1"}


def test_estimate_says_what_a_text_costs_and_why(core):
    core.answer(
        "EstimateMessage",
        pb.EstimateMessageResponse(
            credits=1,
            encoding=message_pb2.ENCODING_UCS2,
            segments=1,
            units=7,
            non_gsm_character="🍕",
            non_gsm_index=0,
        ),
    )
    assert json_of(run("messages", "estimate", ACCOUNT_ID, "🍕 now", "--json")) == {
        "credits": 1,
        "encoding": "ucs2",
        "segments": 1,
        "units": 7,
        "non_gsm_character": "🍕",
        "non_gsm_index": 0,
    }
    assert core.request == pb.EstimateMessageRequest(account_id=ACCOUNT_ID, content="🍕 now")
    assert text_of(run("messages", "estimate", ACCOUNT_ID, "🍕 now")).splitlines() == [
        "1 credit, 1 segment in ucs2, 7 units.",
        "ucs2 because of 🍕 at character 1.",
    ]


def test_estimate_of_a_gsm_text_names_no_character(core):
    core.answer(
        "EstimateMessage",
        pb.EstimateMessageResponse(credits=2, encoding=message_pb2.ENCODING_GSM7, segments=2, units=161),
    )
    shown = json_of(run("messages", "estimate", ACCOUNT_ID, "a" * 161, "--json"))
    assert (shown["encoding"], shown["non_gsm_character"], shown["non_gsm_index"]) == ("gsm7", None, None)
    assert text_of(run("messages", "estimate", ACCOUNT_ID, "a" * 161)) == (
        "2 credits, 2 segments in gsm7, 161 units.\n"
    )


def test_a_character_that_forces_ucs2_cannot_steer_a_terminal(core):
    core.answer("EstimateMessage", pb.EstimateMessageResponse(non_gsm_character="\u202e", non_gsm_index=4))
    shown = text_of(run("messages", "estimate", ACCOUNT_ID, "text\u202e"))
    assert shown.endswith("ucs2 because of \\u202e at character 5.\n")


def inbound(**fields):
    made = message_pb2.InboundMessage(
        id=MESSAGE_ID, account_id=ACCOUNT_ID, sender=PHONE, shortcode="order", content=HOSTILE
    )
    made.created_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.MergeFrom(message_pb2.InboundMessage(**fields))
    return made


def test_inbound_messages_carry_the_webhooks_answer_where_there_is_one(core):
    core.answer(
        "ListInboundMessages",
        pb.ListInboundMessagesResponse(messages=[inbound(webhook_status=200), inbound()]),
    )
    expected = {
        "id": MESSAGE_ID,
        "sender": PHONE,
        "shortcode": "order",
        "content": HOSTILE,
        "webhook_status": 200,
        "created_at": "2026-05-29T10:15:00.007Z",
    }
    assert json_of(run("messages", "inbound", ACCOUNT_ID, "--json")) == {
        "messages": [expected, {**expected, "webhook_status": None}],
        "next_page_token": "",
    }
    assert core.request == pb.ListInboundMessagesRequest(account_id=ACCOUNT_ID, page_size=100)


def test_what_a_phone_sent_cannot_steer_a_terminal(core):
    core.answer("ListInboundMessages", pb.ListInboundMessagesResponse(messages=[inbound()]))
    _, row = text_of(run("messages", "inbound", ACCOUNT_ID)).splitlines()
    assert row.endswith(f"order      -        {HARMLESS}")


def text(**fields):
    made = simulator_service_pb2.SimulatedText(
        id="sim-1", sender="+2899682626", recipient=PHONE, content="Hello from Hep.gg"
    )
    made.received_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.MergeFrom(simulator_service_pb2.SimulatedText(**fields))
    return made


def test_inbox_answers_what_reached_the_phone(core):
    core.answer(
        "ListInbox", simulator_service_pb2.ListInboxResponse(texts=[text()], next_page_token="bmV4dA")
    )
    assert json_of(run("simulate", "inbox", PHONE, "--json")) == {
        "texts": [
            {
                "id": "sim-1",
                "sender": "+2899682626",
                "recipient": PHONE,
                "content": "Hello from Hep.gg",
                "received_at": "2026-05-29T10:15:00.007Z",
            }
        ],
        "next_page_token": "bmV4dA",
    }
    assert core.request == simulator_service_pb2.ListInboxRequest(recipient=PHONE, page_size=100)


def test_inbox_is_a_table_for_people(core):
    core.answer("ListInbox", simulator_service_pb2.ListInboxResponse(texts=[text()]))
    header, row = text_of(run("simulate", "inbox", PHONE)).splitlines()
    assert header.split() == ["received", "sender", "content"]
    assert row.split() == ["2026-05-29T10:15:00.007Z", "+2899682626", "Hello", "from", "Hep.gg"]


def test_an_empty_inbox_is_told_so(core):
    core.answer("ListInbox", simulator_service_pb2.ListInboxResponse())
    assert text_of(run("simulate", "inbox", PHONE)) == f"No texts for {PHONE} yet.\n"


# ---- texts from phones -----------------------------------------------------------------------------------------


def received(outcome=pb.INBOUND_OUTCOME_ROUTED, *, duplicate=False, **fields):
    return pb.ReceiveInboundResponse(message=inbound(**fields), outcome=outcome, duplicate=duplicate)


def test_a_simulated_text_answers_who_got_it(core):
    core.answer("ReceiveInbound", received())
    assert json_of(run("simulate", "inbound", "--from", PHONE, "order x", "--id", "n1", "--json")) == {
        "id": MESSAGE_ID,
        "account_id": ACCOUNT_ID,
        "shortcode": "order",
        "content": HOSTILE,
        "outcome": "routed",
        "duplicate": False,
    }
    assert core.request == pb.ReceiveInboundRequest(
        carrier="simulator", carrier_message_id="n1", sender=PHONE, text="order x"
    )


def test_a_simulated_text_without_a_name_gets_one_so_that_its_call_may_be_repeated(core):
    core.answer("ReceiveInbound", received(duplicate=True))
    # To whoever typed the command it is the first time, however often the channel has repeated the call.
    assert json_of(run("simulate", "inbound", "--from", PHONE, "order", "--json"))["duplicate"] is False
    assert core.request.carrier_message_id.startswith("cli-")


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (received(), f"Account {ACCOUNT_ID} gets {MESSAGE_ID}: it holds the shortcode order.\n"),
        (
            received(duplicate=True),
            f"Account {ACCOUNT_ID} got {MESSAGE_ID}: it holds the shortcode order.\n",
        ),
        (
            received(pb.INBOUND_OUTCOME_OPTED_OUT, shortcode="stop"),
            f"Account {ACCOUNT_ID} gets {MESSAGE_ID}: the phone wants no more of its messages.\n",
        ),
    ],
)
def test_a_simulated_text_is_said_in_words(core, reply, line):
    core.answer("ReceiveInbound", reply)
    assert text_of(run("simulate", "inbound", "--from", PHONE, "order", "--id", "n")) == line


def test_a_text_that_nobody_gets_is_said_to_be_nobodys(core):
    nobodys = received(pb.INBOUND_OUTCOME_UNKNOWN_SHORTCODE, shortcode="pi\x1bzza")
    nobodys.message.account_id = ""
    core.answer("ReceiveInbound", nobodys)
    line = text_of(run("simulate", "inbound", "--from", PHONE, "pizza"))
    assert line == f"Nobody gets {MESSAGE_ID}: no account holds the shortcode pi\\x1bzza.\n"


def test_every_outcome_has_its_words():
    names = {name.removeprefix("INBOUND_OUTCOME_").lower() for name in dict(pb.InboundOutcome.items())}
    assert set(simulate._BECAUSE) == names - {"unspecified"}


def test_what_is_nobodys_is_listed(core):
    core.answer(
        "ListUnownedInboundMessages",
        pb.ListUnownedInboundMessagesResponse(messages=[inbound()], next_page_token="bmV4dA"),
    )
    answer = json_of(run("messages", "unowned", "--page-size", "2", "--page-token", "x", "--json"))
    assert [message["id"] for message in answer["messages"]] == [MESSAGE_ID]
    assert answer["next_page_token"] == "bmV4dA"
    assert core.request == pb.ListUnownedInboundMessagesRequest(page_size=2, page_token="x")
    table = text_of(run("messages", "unowned"))
    assert HARMLESS in table
    assert "--page-token bmV4dA" in table


def test_what_is_nobodys_can_be_given_to_an_account(core):
    core.answer("AssignInboundMessage", pb.AssignInboundMessageResponse(message=inbound()))
    assert json_of(run("messages", "assign", MESSAGE_ID, ACCOUNT_ID, "--json"))["shortcode"] == "order"
    assert core.request == pb.AssignInboundMessageRequest(
        inbound_message_id=MESSAGE_ID, account_id=ACCOUNT_ID
    )
    assert text_of(run("messages", "assign", MESSAGE_ID, ACCOUNT_ID)) == (
        f"{MESSAGE_ID} is {ACCOUNT_ID}'s now.\n"
    )
