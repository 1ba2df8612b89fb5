"""`hydrasms account`."""

import pytest

from hydrasms.accounts.v1 import account_service_pb2 as pb
from tests.support.fake_core import failure_of, json_of, run, running_core, text_of

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"
KEY = "hsms_" + "k" * 36


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def account(**fields):
    made = pb.Account(id=ACCOUNT_ID, name="Pizza", plan=pb.PLAN_PREMIUM, sending_enabled=True)
    made.created_at.FromJsonString("2026-05-29T10:15:00.123456Z")
    made.updated_at.FromJsonString("2026-05-30T00:00:00Z")
    made.MergeFrom(pb.Account(**fields))
    return made


AS_JSON = {
    "id": ACCOUNT_ID,
    "name": "Pizza",
    "plan": "premium",
    "sending_enabled": True,
    "suspended": False,
    "created_at": "2026-05-29T10:15:00.123Z",
    "updated_at": "2026-05-30T00:00:00.000Z",
}


def test_create_answers_the_account_and_its_key_alone(core):
    core.answer("CreateAccount", pb.CreateAccountResponse(account=account(), api_key_secret=KEY))
    shown = json_of(run("account", "create", "Pizza", "--credits", "100", "--plan", "premium", "--json"))
    assert shown == {"account_id": ACCOUNT_ID, "api_key": KEY}
    request = core.request
    assert (request.name, request.plan, request.initial_credits) == ("Pizza", pb.PLAN_PREMIUM, 100)
    assert request.create_api_key
    assert request.sending_enabled


def test_create_makes_a_free_account_without_credits_unless_told_otherwise(core):
    core.answer("CreateAccount", pb.CreateAccountResponse(account=account(), api_key_secret=KEY))
    text_of(run("account", "create", "Pizza"))
    assert (core.request.plan, core.request.initial_credits) == (pb.PLAN_FREE, 0)


def test_create_can_withhold_sending(core):
    core.answer("CreateAccount", pb.CreateAccountResponse(account=account(), api_key_secret=KEY))
    text_of(run("account", "create", "Pizza", "--no-sending"))
    assert core.request.HasField("sending_enabled")
    assert not core.request.sending_enabled


def test_every_creation_has_an_idempotency_key_of_its_own(core):
    core.answer("CreateAccount", pb.CreateAccountResponse(account=account(), api_key_secret=KEY))
    for _ in range(2):
        text_of(run("account", "create", "Pizza"))
    keys = [call.request.idempotency_key for call in core.calls]
    assert all(keys)
    assert len(set(keys)) == 2


def test_create_shows_the_key_to_people_and_says_that_it_is_shown_once(core):
    core.answer("CreateAccount", pb.CreateAccountResponse(account=account(), api_key_secret=KEY))
    lines = text_of(run("account", "create", "Pizza")).splitlines()
    assert lines[0].split() == ["account", ACCOUNT_ID]
    assert lines[1].split() == ["API", "key", "(shown", "this", "once)", KEY]


def test_create_says_what_to_do_when_the_key_was_lost_with_the_first_answer(core):
    core.answer("CreateAccount", pb.CreateAccountResponse(account=account(), idempotent_replayed=True))
    complaint = failure_of(run("account", "create", "Pizza", "--json"))
    assert f"`hydrasms key create {ACCOUNT_ID}`" in complaint


@pytest.mark.parametrize("credits", ["-1", "1000000000001", "many", "1.5"])
def test_create_refuses_impossible_credits_without_a_call(core, credits):
    complaint = failure_of(run("account", "create", "Pizza", "--credits", credits), status=2)
    assert "--credits" in complaint
    assert core.calls == []


def test_list_shows_accounts_and_the_next_page(core):
    core.answer("ListAccounts", pb.ListAccountsResponse(accounts=[account()], next_page_token="bmV4dA"))
    shown = json_of(run("account", "list", "--page-size", "7", "--page-token", "dGhpcw", "--json"))
    assert shown == {"accounts": [AS_JSON], "next_page_token": "bmV4dA"}
    assert (core.request.page_size, core.request.page_token) == (7, "dGhpcw")


def test_list_is_a_table_for_people_that_leads_to_the_next_page(core):
    core.answer("ListAccounts", pb.ListAccountsResponse(accounts=[account()], next_page_token="bmV4dA"))
    header, row, more = text_of(run("account", "list")).splitlines()
    assert header.split() == ["id", "name", "plan", "sending", "suspended", "created"]
    assert row.split() == [ACCOUNT_ID, "Pizza", "premium", "yes", "no", "2026-05-29T10:15:00.123Z"]
    assert more == "There are more: --page-token bmV4dA"


def test_list_says_so_where_there_is_no_account(core):
    core.answer("ListAccounts", pb.ListAccountsResponse())
    assert text_of(run("account", "list")) == "No accounts.\n"


def test_show_answers_one_account(core):
    core.answer("GetAccount", pb.GetAccountResponse(account=account()))
    assert json_of(run("account", "show", ACCOUNT_ID, "--json")) == AS_JSON
    assert core.request == pb.GetAccountRequest(account_id=ACCOUNT_ID)


def test_show_writes_a_line_a_field_for_people(core):
    core.answer("GetAccount", pb.GetAccountResponse(account=account(suspended=True)))
    lines = text_of(run("account", "show", ACCOUNT_ID)).splitlines()
    assert len(lines) == len(AS_JSON)
    assert lines[0].split() == ["id", ACCOUNT_ID]
    assert lines[4].split() == ["suspended", "yes"]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (["--plan", "premium"], {"plan": pb.PLAN_PREMIUM}),
        (["--sending", "off"], {"sending_enabled": False}),
        (["--suspended", "on"], {"suspended": True}),
        (["--suspended", "off", "--name", "Pasta"], {"suspended": False, "name": "Pasta"}),
    ],
)
def test_update_sends_what_is_given_and_nothing_else(core, options, changes):
    core.answer("UpdateAccount", pb.UpdateAccountResponse(account=account()))
    assert json_of(run("account", "update", ACCOUNT_ID, *options, "--json")) == AS_JSON
    assert core.request == pb.UpdateAccountRequest(account_id=ACCOUNT_ID, **changes)
    assert {field.name for field, _ in core.request.ListFields()} == {"account_id", *changes}


def test_update_with_nothing_to_change_is_a_misuse(core):
    complaint = failure_of(run("account", "update", ACCOUNT_ID), status=2)
    assert complaint.startswith("Nothing to change")
    assert "--help" in complaint
    assert core.calls == []


def test_a_plan_of_a_newer_core_is_shown_as_its_number(core):
    newer = account()
    newer.plan = 9
    core.answer("GetAccount", pb.GetAccountResponse(account=newer))
    assert json_of(run("account", "show", ACCOUNT_ID, "--json"))["plan"] == "9"
