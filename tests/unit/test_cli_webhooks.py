"""`hydrasms deliveries` and `hydrasms webhook`."""

from typing import Any

import grpc
import pytest

from hydrasms.webhooks.v1 import webhook_service_pb2 as pb
from hydrasms_core.errors import AlreadyDelivered, InvalidWebhookUrl, NotFound
from tests.support.fake_core import Failure, failure_of, json_of, run, running_core, text_of

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"
ENDPOINT_ID = "018f0000-0000-7000-8000-0000000000d4"
DELIVERY_ID = "018f0000-0000-7000-8000-0000000000e5"
TEXT_ID = "018f0000-0000-7000-8000-0000000000f6"
URL = "https://example.com/hook"
SIGNING = "whsec_c2VjcmV0"


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def attempt(number, **fields):
    made = pb.DeliveryAttempt(number=number, **fields)
    made.at.FromJsonString("2026-05-29T10:15:01.5Z")
    made.duration.FromMilliseconds(1_234)
    return made


def delivery(**fields):
    made = pb.Delivery(
        id=DELIVERY_ID,
        account_id=ACCOUNT_ID,
        endpoint_id=ENDPOINT_ID,
        type=pb.DELIVERY_TYPE_INBOUND,
        subject_id=TEXT_ID,
        status=pb.DELIVERY_STATUS_PENDING,
    )
    made.created_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.next_attempt_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.MergeFrom(pb.Delivery(**fields))
    return made


def dead():
    attempts = [
        attempt(7, failure="Connection refused."),
        attempt(8, http_status=500, failure="The receiver answered 500.", answer="\x1b[2Joops"),
    ]
    made = delivery(status=pb.DELIVERY_STATUS_DEAD, last_http_status=500, attempts=attempts)
    made.ClearField("next_attempt_at")
    return made


AS_JSON: dict[str, Any] = {
    "id": DELIVERY_ID,
    "account_id": ACCOUNT_ID,
    "status": "pending",
    "type": "inbound",
    "endpoint_id": ENDPOINT_ID,
    "subject_id": TEXT_ID,
    "last_http_status": None,
    "next_attempt_at": "2026-05-29T10:15:00.007Z",
    "created_at": "2026-05-29T10:15:00.007Z",
    "attempts": [],
}
DEAD_AS_JSON = {
    **AS_JSON,
    "status": "dead",
    "last_http_status": 500,
    "next_attempt_at": None,
    "attempts": [
        {
            "number": 7,
            "at": "2026-05-29T10:15:01.500Z",
            "duration_ms": 1_234,
            "http_status": None,
            "failure": "Connection refused.",
            "answer": "",
        },
        {
            "number": 8,
            "at": "2026-05-29T10:15:01.500Z",
            "duration_ms": 1_234,
            "http_status": 500,
            "failure": "The receiver answered 500.",
            "answer": "\x1b[2Joops",
        },
    ],
}


def endpoint(**fields):
    return pb.Endpoint(
        **{
            "id": ENDPOINT_ID,
            "account_id": ACCOUNT_ID,
            "shortcode": "order",
            "url": URL,
            "retries": True,
            **fields,
        }
    )


ENDPOINT_AS_JSON = {
    "endpoint_id": ENDPOINT_ID,
    "account_id": ACCOUNT_ID,
    "shortcode": "order",
    "url": URL,
    "retries": True,
    "failing_since": None,
    "disabled_at": None,
    "disabled_reason": "",
    "previous_secret_until": None,
}


def details(text):
    """Return what is printed for people, as words by line."""
    return [line.split() for line in text.splitlines()]


# ---- deliveries list -----------------------------------------------------------------------------------------


def test_list_shows_deliveries_with_their_attempts_and_the_next_page(core):
    core.answer(
        "ListDeliveries", pb.ListDeliveriesResponse(deliveries=[delivery(), dead()], next_page_token="bmV4")
    )
    shown = json_of(run("deliveries", "list", ACCOUNT_ID, "--json"))
    assert shown == {"deliveries": [AS_JSON, DEAD_AS_JSON], "next_page_token": "bmV4"}
    assert core.request == pb.ListDeliveriesRequest(account_id=ACCOUNT_ID, page_size=100)


@pytest.mark.parametrize(
    ("status", "number"),
    [
        ("pending", pb.DELIVERY_STATUS_PENDING),
        ("delivered", pb.DELIVERY_STATUS_DELIVERED),
        ("dead", pb.DELIVERY_STATUS_DEAD),
    ],
)
def test_list_asks_for_what_is_wanted_alone(core, status, number):
    core.answer("ListDeliveries", pb.ListDeliveriesResponse())
    options = ("--status", status, "--endpoint", ENDPOINT_ID, "--page-size", "2", "--page-token", "bmV4")
    shown = json_of(run("deliveries", "list", ACCOUNT_ID, *options, "--json"))
    assert shown == {"deliveries": [], "next_page_token": ""}
    assert core.request == pb.ListDeliveriesRequest(
        account_id=ACCOUNT_ID, status=number, endpoint_id=ENDPOINT_ID, page_size=2, page_token="bmV4"
    )


def test_list_is_a_table_for_people(core):
    answer = pb.ListDeliveriesResponse(deliveries=[delivery(), dead()], next_page_token="bmV4")
    core.answer("ListDeliveries", answer)
    header, waiting, given_up, more = text_of(run("deliveries", "list", ACCOUNT_ID)).splitlines()
    columns = ["id", "created", "status", "type", "subject", "attempts", "last", "next", "failure"]
    created = "2026-05-29T10:15:00.007Z"
    assert header.split() == columns
    assert waiting.split() == [DELIVERY_ID, created, "pending", "inbound", TEXT_ID, "0", "-", created, "-"]
    failure = ["The", "receiver", "answered", "500."]
    assert given_up.split() == [DELIVERY_ID, created, "dead", "inbound", TEXT_ID, "8", "500", "-", *failure]
    assert more == "There are more: --page-token bmV4"


def test_an_empty_list_says_so(core):
    core.answer("ListDeliveries", pb.ListDeliveriesResponse())
    assert text_of(run("deliveries", "list", ACCOUNT_ID)) == "No deliveries.\n"


def test_what_a_receiver_answered_cannot_steer_a_terminal(core):
    failing = delivery(attempts=[attempt(1, failure="\x1b[2Jno")])
    core.answer("ListDeliveries", pb.ListDeliveriesResponse(deliveries=[failing]))
    core.answer("Redeliver", pb.RedeliverResponse(delivery=failing))
    for arguments in (("list", ACCOUNT_ID), ("redeliver", DELIVERY_ID)):
        for form in ((), ("--json",)):
            assert "\x1b" not in text_of(run("deliveries", *arguments, *form))


def test_a_status_that_only_a_later_core_knows_is_its_number(core):
    later = delivery()
    later.status = 9
    core.answer("ListDeliveries", pb.ListDeliveriesResponse(deliveries=[later]))
    (shown,) = json_of(run("deliveries", "list", ACCOUNT_ID, "--json"))["deliveries"]
    assert shown["status"] == "9"


def test_a_status_that_there_is_not_asks_nobody(core):
    complaint = failure_of(run("deliveries", "list", ACCOUNT_ID, "--status", "lost"), status=2)
    assert "Invalid value for '--status'" in complaint
    assert core.calls == []


# ---- deliveries redeliver ------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", [(), ("--account", ACCOUNT_ID)])
def test_redeliver_pushes_one_again_whosever_it_is(core, account):
    core.answer("Redeliver", pb.RedeliverResponse(delivery=delivery()))
    assert json_of(run("deliveries", "redeliver", DELIVERY_ID, *account, "--json")) == AS_JSON
    owner = ACCOUNT_ID if account else ""
    assert core.request == pb.RedeliverRequest(account_id=owner, delivery_id=DELIVERY_ID)


def test_redeliver_shows_people_the_delivery(core):
    again = dead()
    again.status = pb.DELIVERY_STATUS_PENDING
    core.answer("Redeliver", pb.RedeliverResponse(delivery=again))
    lines = details(text_of(run("deliveries", "redeliver", DELIVERY_ID)))
    assert ["id", DELIVERY_ID] in lines
    assert ["status", "pending"] in lines
    assert ["last", "http", "status", "500"] in lines
    assert ["next", "attempt", "at", "-"] in lines
    # The last one's number: not all of them come along.
    assert ["attempts", "8"] in lines


def test_what_was_delivered_is_refused_with_the_reason(core):
    core.answer("Redeliver", AlreadyDelivered("The delivery was answered 2xx, and is not repeated."))
    complaint = failure_of(run("deliveries", "redeliver", DELIVERY_ID))
    assert complaint == "The delivery was answered 2xx, and is not repeated. (ALREADY_DELIVERED)"


@pytest.mark.parametrize("to_one", [(), ("--endpoint", ENDPOINT_ID)])
def test_all_that_was_given_up_is_pushed_again_in_one_call(core, to_one):
    core.answer("RedeliverDead", pb.RedeliverDeadResponse(redelivered=12, more=False))
    arguments = ("deliveries", "redeliver", "--all-dead", "--account", ACCOUNT_ID, *to_one)
    assert json_of(run(*arguments, "--json")) == {"redelivered": 12, "more": False}
    endpoint_id = ENDPOINT_ID if to_one else ""
    assert core.request == pb.RedeliverDeadRequest(account_id=ACCOUNT_ID, endpoint_id=endpoint_id)
    assert [call.method for call in core.calls] == ["RedeliverDead"]


@pytest.mark.parametrize(
    ("number", "more", "said"),
    [
        (0, False, "0 deliveries pushed again.\n"),
        (1, False, "1 delivery pushed again.\n"),
        (10_000, True, "10,000 deliveries pushed again.\nThere are more: repeat the command.\n"),
    ],
)
def test_people_are_told_how_many_and_whether_there_are_more(core, number, more, said):
    core.answer("RedeliverDead", pb.RedeliverDeadResponse(redelivered=number, more=more))
    assert text_of(run("deliveries", "redeliver", "--all-dead", "--account", ACCOUNT_ID)) == said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Give the id of one delivery, or --all-dead and --account."),
        ((DELIVERY_ID, "--all-dead", "--account", ACCOUNT_ID), "Give the id of one delivery, or --all-dead"),
        (("--all-dead",), "--all-dead takes --account."),
        ((DELIVERY_ID, "--endpoint", ENDPOINT_ID), "--endpoint goes with --all-dead."),
    ],
)
def test_a_redelivery_that_says_too_little_or_too_much_asks_nobody(core, arguments, complaint):
    assert complaint in failure_of(run("deliveries", "redeliver", *arguments), status=2)
    assert core.calls == []


# ---- webhook -------------------------------------------------------------------------------------------------

# The endpoint that a command is about, and the one that it asks for: the account's own unless one is given.
ENDPOINTS = pytest.mark.parametrize(("given", "asked"), [((), ACCOUNT_ID), ((ENDPOINT_ID,), ENDPOINT_ID)])


@ENDPOINTS
def test_test_answers_the_delivery_that_it_queued(core, given, asked):
    queued = delivery(type=pb.DELIVERY_TYPE_TEST)
    queued.subject_id = ""
    core.answer("SendTestEvent", pb.SendTestEventResponse(delivery=queued))
    shown = json_of(run("webhook", "test", ACCOUNT_ID, *given, "--json"))
    assert shown == {**AS_JSON, "type": "test", "subject_id": ""}
    assert core.request == pb.SendTestEventRequest(account_id=ACCOUNT_ID, endpoint_id=asked)
    assert ["subject", "id", "-"] in details(text_of(run("webhook", "test", ACCOUNT_ID, *given)))


@ENDPOINTS
def test_show_answers_the_webhook_as_it_is(core, given, asked):
    core.answer("GetEndpoint", pb.GetEndpointResponse(endpoint=endpoint()))
    assert json_of(run("webhook", "show", ACCOUNT_ID, *given, "--json")) == ENDPOINT_AS_JSON
    assert core.request == pb.GetEndpointRequest(account_id=ACCOUNT_ID, endpoint_id=asked)


def test_show_says_since_when_and_why_nothing_is_pushed(core):
    disabled = endpoint(disabled_reason="The receiver answered 410 Gone.", retries=False)
    disabled.failing_since.FromJsonString("2026-05-28T00:00:00Z")
    disabled.disabled_at.FromJsonString("2026-05-29T00:00:00Z")
    disabled.previous_secret_until.FromJsonString("2026-05-30T00:00:00Z")
    core.answer("GetEndpoint", pb.GetEndpointResponse(endpoint=disabled))
    lines = details(text_of(run("webhook", "show", ACCOUNT_ID, ENDPOINT_ID)))
    assert ["failing", "since", "2026-05-28T00:00:00.000Z"] in lines
    assert ["disabled", "at", "2026-05-29T00:00:00.000Z"] in lines
    assert ["disabled", "reason", "The", "receiver", "answered", "410", "Gone."] in lines
    assert ["previous", "secret", "until", "2026-05-30T00:00:00.000Z"] in lines
    assert ["retries", "no"] in lines
    assert not [line for line in lines if "signing" in line]


def test_a_webhook_that_there_is_not_is_one_line(core):
    core.answer("GetEndpoint", NotFound("webhook endpoint"))
    complaint = failure_of(run("webhook", "show", ACCOUNT_ID))
    assert complaint == "There is no such webhook endpoint. (NOT_FOUND)"


@ENDPOINTS
def test_rotate_shows_the_new_secret_once(core, given, asked):
    answer = pb.RotateSecretResponse(signing_secret=SIGNING, endpoint=endpoint())
    core.answer("RotateSecret", answer)
    shown = json_of(run("webhook", "rotate-secret", ACCOUNT_ID, *given, "--json"))
    assert shown == {**ENDPOINT_AS_JSON, "signing_secret": SIGNING}
    # How long the old one is used is the core's to say.
    assert core.request == pb.RotateSecretRequest(account_id=ACCOUNT_ID, endpoint_id=asked)
    assert not core.request.HasField("overlap")
    lines = details(text_of(run("webhook", "rotate-secret", ACCOUNT_ID, *given)))
    assert ["signing", "secret", "(shown", "this", "once)", SIGNING] in lines


@pytest.mark.parametrize(
    ("overlap", "seconds"), [("0s", 0), ("90m", 5_400), ("24h", 86_400), ("30d", 2_592_000)]
)
def test_rotate_says_how_long_the_old_secret_is_used(core, overlap, seconds):
    core.answer("RotateSecret", pb.RotateSecretResponse(signing_secret=SIGNING, endpoint=endpoint()))
    text_of(run("webhook", "rotate-secret", ACCOUNT_ID, "--overlap", overlap))
    assert core.request.HasField("overlap")
    assert core.request.overlap.ToSeconds() == seconds


@pytest.mark.parametrize("overlap", ["", "24", "-1h", "1.5h", "31d", "24h "])
def test_rotate_refuses_an_overlap_that_is_none(core, overlap):
    complaint = failure_of(run("webhook", "rotate-secret", ACCOUNT_ID, "--overlap", overlap), status=2)
    assert "0s to 30d" in complaint
    assert core.calls == []


def test_set_account_shows_the_secret_that_it_made(core):
    made = endpoint(id=ACCOUNT_ID, shortcode="")
    core.answer("SetAccountWebhook", pb.SetAccountWebhookResponse(endpoint=made, signing_secret=SIGNING))
    shown = json_of(run("webhook", "set-account", ACCOUNT_ID, URL, "--json"))
    assert shown == {
        **ENDPOINT_AS_JSON,
        "endpoint_id": ACCOUNT_ID,
        "shortcode": "",
        "signing_secret": SIGNING,
    }
    assert core.request == pb.SetAccountWebhookRequest(account_id=ACCOUNT_ID, url=URL)


def test_set_account_shows_no_secret_that_was_there_before(core):
    core.answer("SetAccountWebhook", pb.SetAccountWebhookResponse(endpoint=endpoint()))
    assert json_of(run("webhook", "set-account", ACCOUNT_ID, URL, "--json")) == ENDPOINT_AS_JSON
    assert "signing" not in text_of(run("webhook", "set-account", ACCOUNT_ID, URL))


def test_set_account_takes_the_webhook_away(core):
    core.answer("SetAccountWebhook", pb.SetAccountWebhookResponse())
    shown = json_of(run("webhook", "set-account", ACCOUNT_ID, "", "--json"))
    assert shown == {"endpoint_id": ACCOUNT_ID, "removed": True}
    assert core.request == pb.SetAccountWebhookRequest(account_id=ACCOUNT_ID)
    assert (
        text_of(run("webhook", "set-account", ACCOUNT_ID, "")) == "The account has no webhook of its own.\n"
    )


def test_a_url_that_is_refused_is_one_line_with_its_reason(core):
    core.answer(
        "SetAccountWebhook", InvalidWebhookUrl("The webhook's URL has no valid host or port.", field="url")
    )
    complaint = failure_of(run("webhook", "set-account", ACCOUNT_ID, "https://"))
    assert complaint == "The webhook's URL has no valid host or port. (INVALID_WEBHOOK_URL)"


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("rotate-secret", ACCOUNT_ID), "RotateSecret"),
        (("set-account", ACCOUNT_ID, URL), "SetAccountWebhook"),
    ],
)
def test_what_makes_a_secret_is_not_repeated_by_itself(core, arguments, method):
    """The first call may have made it, and its answer was the only one to show it."""
    core.answer(method, Failure(grpc.StatusCode.UNAVAILABLE))
    assert "does not answer" in failure_of(run("webhook", *arguments))
    assert len(core.calls) == 1
