"""hydrasms.messaging.v1.ShortcodeService: what its servicer asks of the service, and what it answers."""

from typing import Any

import pytest

from hydrasms.messaging.v1 import shortcode_service_pb2 as pb
from hydrasms_base.secret import Secret
from hydrasms_core.caller import Caller
from hydrasms_core.paging import Page
from hydrasms_core.shortcodes import model
from hydrasms_core.shortcodes.ports import Hook, MadeSecrets
from hydrasms_core.shortcodes.servicer import ShortcodeServicer
from tests.support.servicers import ask

SHORTCODES = pb.DESCRIPTOR.services_by_name["ShortcodeService"]
ALICE = Caller(account_id="alice")
SERVICE = Caller(account_id=None)
AT_MS = 1_780_049_700_007
URL = "https://example.com/hook"

SHORTCODE = model.Shortcode("s1", "alice", "order", True, AT_MS, AT_MS + 1)
BARE = model.HookedShortcode(SHORTCODE, None)
HOOKED = model.HookedShortcode(SHORTCODE, Hook(URL, True, None, ""))


def ask_shortcodes(method: str, request: Any, who: Caller = ALICE, **answers: Any) -> tuple[Any, Any]:
    """Return what the service was asked and what the caller was answered."""
    return ask(SHORTCODES, ShortcodeServicer, method, request, who, answers)


def as_asked(value: Any) -> dict[str, Any]:
    """Return the fields of a request, with its secret shown."""
    fields = {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    secret = fields["secret"]
    return fields | {"secret": None if secret is None else secret.reveal()}


def test_a_claim_is_unpacked_with_its_defaults():
    asked, response = ask_shortcodes(
        "CreateShortcode", pb.CreateShortcodeRequest(word="Order"), create=model.ChangedShortcode(BARE)
    )
    assert asked == ("create", model.NewShortcode("alice", "Order"))
    assert (response.secret, response.signing_secret, response.idempotent_replayed) == ("", "", False)
    assert response.shortcode == pb.Shortcode(
        id="s1",
        account_id="alice",
        word="order",
        active=True,
        created_at=response.shortcode.created_at,
        updated_at=response.shortcode.updated_at,
    )
    assert response.shortcode.created_at.ToMilliseconds() == AT_MS
    assert response.shortcode.updated_at.ToMilliseconds() == AT_MS + 1


def test_a_claim_is_unpacked_with_all_that_it_says_and_shows_the_secrets_once():
    made = MadeSecrets(Secret("made-here"), Secret("whsec_x"))
    asked, response = ask_shortcodes(
        "CreateShortcode",
        pb.CreateShortcodeRequest(
            account_id="alice",
            word="Order",
            webhook_url=URL,
            secret="mine",
            retries=False,
            idempotency_key="k",
        ),
        SERVICE,
        create=model.ChangedShortcode(HOOKED, made, replayed=True),
    )
    assert as_asked(asked[1]) == {
        "account_id": "alice",
        "word": "Order",
        "webhook_url": URL,
        "secret": "mine",
        "retries": False,
        "idempotency_key": "k",
    }
    assert (response.secret, response.signing_secret) == ("made-here", "whsec_x")
    assert response.idempotent_replayed
    assert (response.shortcode.webhook_url, response.shortcode.retries) == (URL, True)
    assert not response.shortcode.HasField("webhook_disabled_at")


def test_an_empty_secret_and_an_empty_key_are_not_the_same_as_none():
    asked, _ = ask_shortcodes(
        "CreateShortcode",
        pb.CreateShortcodeRequest(secret="", idempotency_key=""),
        create=model.ChangedShortcode(BARE),
    )
    assert as_asked(asked[1])["secret"] == ""
    assert asked[1].idempotency_key == ""


def test_a_shortcode_is_read_with_what_became_of_its_webhook():
    hook = Hook(URL, False, AT_MS + 2, "it answered 410")
    asked, response = ask_shortcodes(
        "GetShortcode",
        pb.GetShortcodeRequest(shortcode_id="Order"),
        get=model.HookedShortcode(SHORTCODE, hook),
    )
    assert asked == ("get", "alice", "Order")
    assert response.shortcode.webhook_disabled_at.ToMilliseconds() == AT_MS + 2
    assert response.shortcode.webhook_disabled_reason == "it answered 410"
    assert (response.shortcode.webhook_url, response.shortcode.retries) == (URL, False)


def test_a_change_is_what_was_set_alone():
    asked, response = ask_shortcodes(
        "UpdateShortcode",
        pb.UpdateShortcodeRequest(shortcode_id="s1"),
        update=model.ChangedShortcode(BARE),
    )
    assert asked == ("update", "alice", "s1", model.ShortcodeChange())
    assert (response.secret, response.signing_secret) == ("", "")
    asked, response = ask_shortcodes(
        "UpdateShortcode",
        pb.UpdateShortcodeRequest(shortcode_id="s1", webhook_url="", secret="mine", retries=False),
        update=model.ChangedShortcode(HOOKED, MadeSecrets(None, Secret("whsec_x"))),
    )
    assert as_asked(asked[3]) == {"webhook_url": "", "secret": "mine", "retries": False}
    assert (response.secret, response.signing_secret) == ("", "whsec_x")


def test_a_release_names_the_shortcode():
    asked, response = ask_shortcodes(
        "DeleteShortcode",
        pb.DeleteShortcodeRequest(account_id="alice", shortcode_id="order"),
        SERVICE,
        delete=None,
    )
    assert asked == ("delete", "alice", "order")
    assert response == pb.DeleteShortcodeResponse()


def test_a_list_is_a_page():
    asked, response = ask_shortcodes(
        "ListShortcodes",
        pb.ListShortcodesRequest(page_size=2, page_token="t"),
        list_all=Page([HOOKED, BARE], "next"),
    )
    assert asked == ("list_all", "alice", 2, "t")
    assert [each.webhook_url for each in response.shortcodes] == [URL, ""]
    assert response.next_page_token == "next"


@pytest.mark.parametrize("reason", model.RoutingReason)
def test_who_gets_a_text_is_told_with_every_reason(reason):
    asked, response = ask_shortcodes(
        "WhoGets", pb.WhoGetsRequest(text="Order x"), SERVICE, who_gets=model.Routing(reason, "order", "x")
    )
    assert asked == ("who_gets", "Order x")
    assert pb.RoutingReason.Name(response.reason) == f"ROUTING_REASON_{reason.name}"
    assert (response.word, response.content) == ("order", "x")
    assert not response.HasField("shortcode")


def test_who_gets_a_text_is_told_with_the_shortcode():
    _, response = ask_shortcodes(
        "WhoGets",
        pb.WhoGetsRequest(text="Order x"),
        SERVICE,
        who_gets=model.Routing(model.RoutingReason.PUSHED, "order", "x", HOOKED),
    )
    assert (response.shortcode.account_id, response.shortcode.webhook_url) == ("alice", URL)


def test_every_reason_of_the_protos_but_the_unspecified_is_one_of_ours():
    names = {name.removeprefix("ROUTING_REASON_") for name in pb.RoutingReason.keys()}  # noqa: SIM118
    assert names == {reason.name for reason in model.RoutingReason} | {"UNSPECIFIED"}
