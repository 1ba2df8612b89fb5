"""`hydrasms shortcode`."""

import grpc
import pytest

from hydrasms.messaging.v1 import shortcode_service_pb2 as pb
from hydrasms_core.errors import NotFound, ShortcodeLimitReached
from tests.support.fake_core import Failure, failure_of, json_of, run, running_core, text_of

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"
SHORTCODE_ID = "018f0000-0000-7000-8000-0000000000d4"
URL = "https://example.com/hook"
AUTH = "correct horse"
SIGNING = "whsec_c2VjcmV0"


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def shortcode(**fields):
    made = pb.Shortcode(id=SHORTCODE_ID, account_id=ACCOUNT_ID, word="order", active=True)
    made.created_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.updated_at.FromJsonString("2026-05-29T10:15:01.5Z")
    made.MergeFrom(pb.Shortcode(**fields))
    return made


def hooked(**fields):
    return shortcode(webhook_url=URL, retries=True, **fields)


AS_JSON = {
    "id": SHORTCODE_ID,
    "account_id": ACCOUNT_ID,
    "word": "order",
    "active": True,
    "webhook_url": None,
    "retries": None,
    "webhook_disabled_at": None,
    "webhook_disabled_reason": None,
    "created_at": "2026-05-29T10:15:00.007Z",
    "updated_at": "2026-05-29T10:15:01.500Z",
}
HOOKED_AS_JSON = {**AS_JSON, "webhook_url": URL, "retries": True}


def test_create_claims_a_word(core):
    core.answer("CreateShortcode", pb.CreateShortcodeResponse(shortcode=shortcode()))
    assert json_of(run("shortcode", "create", ACCOUNT_ID, "ORDER", "--json")) == AS_JSON
    request = core.request
    assert (request.account_id, request.word, request.webhook_url) == (ACCOUNT_ID, "ORDER", "")
    assert not request.HasField("secret")
    assert not request.HasField("retries")
    assert request.idempotency_key


def test_create_shows_the_secrets_that_were_made(core):
    answer = pb.CreateShortcodeResponse(shortcode=hooked(), secret="made-here", signing_secret=SIGNING)
    core.answer("CreateShortcode", answer)
    shown = json_of(run("shortcode", "create", ACCOUNT_ID, "order", "--webhook", URL, "--json"))
    assert shown == {**HOOKED_AS_JSON, "secret": "made-here", "signing_secret": SIGNING}
    assert core.request.webhook_url == URL


def test_create_says_to_people_that_secrets_are_shown_once(core):
    answer = pb.CreateShortcodeResponse(shortcode=hooked(), secret="made-here", signing_secret=SIGNING)
    core.answer("CreateShortcode", answer)
    lines = text_of(run("shortcode", "create", ACCOUNT_ID, "order", "--webhook", URL)).splitlines()
    assert ["secret", "(shown", "this", "once)", "made-here"] in [line.split() for line in lines]
    assert ["signing", "secret", "(shown", "this", "once)", SIGNING] in [line.split() for line in lines]
    assert ["word", "order"] in [line.split() for line in lines]
    assert ["active", "yes"] in [line.split() for line in lines]


def test_create_says_what_to_do_when_the_secrets_were_lost_with_the_first_answer(core):
    core.answer("CreateShortcode", pb.CreateShortcodeResponse(shortcode=hooked(), idempotent_replayed=True))
    complaint = failure_of(run("shortcode", "create", ACCOUNT_ID, "order", "--webhook", URL))
    assert f"`hydrasms shortcode delete {ACCOUNT_ID} order`" in complaint


def test_create_repeats_under_one_key(core):
    answer = pb.CreateShortcodeResponse(shortcode=shortcode())
    core.answer("CreateShortcode", Failure(grpc.StatusCode.UNAVAILABLE), answer)
    json_of(run("shortcode", "create", ACCOUNT_ID, "order", "--json"))
    first, again = core.calls
    assert first.request == again.request


@pytest.mark.parametrize(("given", "retries"), [("on", True), ("off", False)])
def test_create_says_whether_to_try_again(core, given, retries):
    answer = pb.CreateShortcodeResponse(shortcode=hooked(), signing_secret=SIGNING)
    core.answer("CreateShortcode", answer)
    text_of(run("shortcode", "create", ACCOUNT_ID, "order", "--webhook", URL, "--retries", given))
    assert core.request.HasField("retries")
    assert core.request.retries is retries


def secret_sent(core, *options, standard_input=b""):
    core.answer("CreateShortcode", pb.CreateShortcodeResponse(shortcode=hooked(), signing_secret=SIGNING))
    arguments = ("shortcode", "create", ACCOUNT_ID, "order", "--webhook", URL, "--json", *options)
    shown = json_of(run(*arguments, standard_input=standard_input))
    assert AUTH not in str(shown)
    return core.request.secret


def test_a_secret_is_given_as_an_argument(core):
    assert secret_sent(core, "--secret", AUTH) == AUTH


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_secret_is_read_from_standard_input(core, end):
    assert secret_sent(core, "--secret-file", "-", standard_input=AUTH.encode() + end) == AUTH


def test_a_secret_is_read_from_a_file(core, tmp_path):
    path = tmp_path / "secret"
    path.write_text("naïve 🍕\n")
    assert secret_sent(core, "--secret-file", str(path)) == "naïve 🍕"


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\xfe\xfd\xfc", b"x" * 100_000])
def test_what_is_no_secret_is_refused_before_the_core_is_asked_and_never_quoted(core, given, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(given)
    for file, name in (("-", "standard input"), (str(path), str(path))):
        complaint = failure_of(
            run("shortcode", "update", ACCOUNT_ID, "order", "--secret-file", file, standard_input=given)
        )
        assert complaint.startswith(f"{name} does not hold one secret")
        assert "xxxx" not in complaint
    assert core.calls == []


def test_a_secret_file_that_is_not_there_is_one_line(core, tmp_path):
    path = str(tmp_path / "missing")
    complaint = failure_of(run("shortcode", "create", ACCOUNT_ID, "order", "--secret-file", path))
    assert complaint == f"{path}: No such file or directory"


def test_a_secret_is_given_one_way(core):
    arguments = ("--secret", AUTH, "--secret-file", "-")
    complaint = failure_of(run("shortcode", "create", ACCOUNT_ID, "order", *arguments), status=2)
    assert complaint.startswith("Give either --secret or --secret-file.")
    assert AUTH not in complaint
    assert core.calls == []


def test_a_refusal_is_one_line_with_its_reason(core):
    core.answer("CreateShortcode", ShortcodeLimitReached("The plan covers 1 shortcode."))
    complaint = failure_of(run("shortcode", "create", ACCOUNT_ID, "order"))
    assert complaint == "The plan covers 1 shortcode. (SHORTCODE_LIMIT_REACHED)"


def test_list_shows_what_there_is(core):
    disabled = hooked(webhook_disabled_reason="it answered 410")
    disabled.webhook_disabled_at.FromJsonString("2026-05-30T10:15:00Z")
    core.answer(
        "ListShortcodes",
        pb.ListShortcodesResponse(shortcodes=[disabled, shortcode(word="pizza")], next_page_token="next"),
    )
    shown = json_of(run("shortcode", "list", ACCOUNT_ID, "--page-size", "2", "--page-token", "t", "--json"))
    assert shown == {
        "shortcodes": [
            {
                **HOOKED_AS_JSON,
                "webhook_disabled_at": "2026-05-30T10:15:00.000Z",
                "webhook_disabled_reason": "it answered 410",
            },
            {**AS_JSON, "word": "pizza"},
        ],
        "next_page_token": "next",
    }
    assert core.request == pb.ListShortcodesRequest(account_id=ACCOUNT_ID, page_size=2, page_token="t")
    table = text_of(run("shortcode", "list", ACCOUNT_ID)).splitlines()
    assert table[0].split() == ["id", "word", "active", "webhook", "retries", "disabled", "created"]
    assert table[1].split()[:5] == [SHORTCODE_ID, "order", "yes", URL, "yes"]
    assert table[2].split()[:6] == [SHORTCODE_ID, "pizza", "yes", "-", "-", "-"]
    assert table[3] == "There are more: --page-token next"


def test_an_empty_list_says_so(core):
    core.answer("ListShortcodes", pb.ListShortcodesResponse())
    assert text_of(run("shortcode", "list", ACCOUNT_ID)) == "No shortcodes.\n"


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (("--webhook", URL), {"webhook_url": URL}),
        (("--no-webhook",), {"webhook_url": ""}),
        (("--secret", AUTH), {"secret": AUTH}),
        (("--retries", "off"), {"retries": False}),
        (("--webhook", URL, "--retries", "on"), {"webhook_url": URL, "retries": True}),
    ],
)
def test_update_changes_what_is_given_alone(core, options, fields):
    core.answer("UpdateShortcode", pb.UpdateShortcodeResponse(shortcode=hooked()))
    shown = json_of(run("shortcode", "update", ACCOUNT_ID, "Order", *options, "--json"))
    assert shown == HOOKED_AS_JSON
    assert core.request == pb.UpdateShortcodeRequest(account_id=ACCOUNT_ID, shortcode_id="Order", **fields)


def test_update_shows_the_secrets_of_a_first_webhook(core):
    answer = pb.UpdateShortcodeResponse(shortcode=hooked(), secret="made-here", signing_secret=SIGNING)
    core.answer("UpdateShortcode", answer)
    shown = json_of(run("shortcode", "update", ACCOUNT_ID, "order", "--webhook", URL, "--json"))
    assert (shown["secret"], shown["signing_secret"]) == ("made-here", SIGNING)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "Nothing to change"),
        (("--webhook", URL, "--no-webhook"), "Give either --webhook or --no-webhook"),
        (("--retries", "perhaps"), "Invalid value for '--retries'"),
    ],
)
def test_an_update_that_says_nothing_or_too_much_asks_nobody(core, options, complaint):
    assert complaint in failure_of(run("shortcode", "update", ACCOUNT_ID, "order", *options), status=2)
    assert core.calls == []


def test_delete_releases_a_word(core):
    core.answer("DeleteShortcode", pb.DeleteShortcodeResponse())
    shown = json_of(run("shortcode", "delete", ACCOUNT_ID, "order", "--json"))
    assert shown == {"account_id": ACCOUNT_ID, "shortcode": "order", "deleted": True}
    assert core.request == pb.DeleteShortcodeRequest(account_id=ACCOUNT_ID, shortcode_id="order")
    assert text_of(run("shortcode", "delete", ACCOUNT_ID, "order")) == "Deleted the shortcode order.\n"


def test_a_release_is_not_repeated_by_itself(core):
    """The repeat of one that was done would find nothing."""
    unavailable = Failure(grpc.StatusCode.UNAVAILABLE)
    core.answer("DeleteShortcode", unavailable, NotFound("shortcode"))
    assert "does not answer" in failure_of(run("shortcode", "delete", ACCOUNT_ID, "order"))
    assert len(core.calls) == 1


def test_who_gets_says_who_and_why(core):
    core.answer(
        "WhoGets",
        pb.WhoGetsResponse(
            reason=pb.ROUTING_REASON_PUSHED, word="order", content="large", shortcode=hooked()
        ),
    )
    assert json_of(run("shortcode", "who-gets", "ORDER large", "--json")) == {
        "reason": "pushed",
        "word": "order",
        "content": "large",
        "account_id": ACCOUNT_ID,
        "shortcode_id": SHORTCODE_ID,
        "webhook_url": URL,
    }
    assert core.request == pb.WhoGetsRequest(text="ORDER large")


def test_who_gets_of_nobodys_word_has_no_shortcode(core):
    answer = pb.WhoGetsResponse(reason=pb.ROUTING_REASON_UNKNOWN_SHORTCODE, word="nobody", content="\x1bx")
    core.answer("WhoGets", answer)
    shown = json_of(run("shortcode", "who-gets", "nobody x", "--json"))
    assert (shown["reason"], shown["account_id"], shown["shortcode_id"]) == ("unknown_shortcode", None, None)
    assert "\x1b" not in text_of(run("shortcode", "who-gets", "nobody x"))
