"""`hydrasms key`."""

import pytest

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms_base.keys import digest_key, generate_key
from tests.support.fake_core import failure_of, json_of, run, running_core, text_of

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"
KEY_ID = "018f0000-0000-7000-8000-0000000000b2"
OLD_ID = "018f0000-0000-7000-8000-0000000000b1"
SECRET = "hsms_" + "s" * 36
ELSEWHERE = "an-old-key-made-elsewhere-0123456789"


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def key(**fields):
    made = pb.ApiKey(id=KEY_ID, account_id=ACCOUNT_ID, name="till", prefix="hsms_ssss", enabled=True)
    made.created_at.FromJsonString("2026-05-29T10:15:00.007Z")
    made.MergeFrom(pb.ApiKey(**fields))
    return made


AS_JSON = {
    "id": KEY_ID,
    "account_id": ACCOUNT_ID,
    "name": "till",
    "prefix": "hsms_ssss",
    "enabled": True,
    "imported": False,
    "created_at": "2026-05-29T10:15:00.007Z",
    "expires_at": None,
}


def test_create_answers_the_key_once(core):
    core.answer("CreateApiKey", pb.CreateApiKeyResponse(api_key=key(), secret=SECRET))
    shown = json_of(run("key", "create", ACCOUNT_ID, "--name", "till", "--json"))
    assert shown == {
        "api_key_id": KEY_ID,
        "account_id": ACCOUNT_ID,
        "api_key": SECRET,
        "prefix": "hsms_ssss",
    }
    assert (core.request.account_id, core.request.name) == (ACCOUNT_ID, "till")
    assert not core.request.HasField("imported")
    assert core.request.idempotency_key


def test_create_shows_the_key_to_people_and_says_that_it_is_shown_once(core):
    core.answer("CreateApiKey", pb.CreateApiKeyResponse(api_key=key(), secret=SECRET))
    lines = [line.split() for line in text_of(run("key", "create", ACCOUNT_ID)).splitlines()]
    assert lines == [
        ["id", KEY_ID],
        ["account", ACCOUNT_ID],
        ["API", "key", "(shown", "this", "once)", SECRET],
        ["prefix", "hsms_ssss"],
    ]


def test_create_says_what_to_do_when_the_key_was_lost_with_the_first_answer(core):
    core.answer("CreateApiKey", pb.CreateApiKeyResponse(api_key=key(), idempotent_replayed=True))
    assert f"`hydrasms key delete {KEY_ID}`" in failure_of(run("key", "create", ACCOUNT_ID))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_an_imported_key_travels_as_its_digest_alone(core, end):
    core.answer("CreateApiKey", pb.CreateApiKeyResponse(api_key=key(imported=True, prefix="an-old-ke")))
    result = run(
        "key", "create", ACCOUNT_ID, "--import", "-", "--json", standard_input=ELSEWHERE.encode() + end
    )
    assert json_of(result) == {"api_key_id": KEY_ID, "account_id": ACCOUNT_ID, "prefix": "an-old-ke"}
    assert core.request.imported == pb.ImportedKey(digest=digest_key(ELSEWHERE), prefix=ELSEWHERE[:9])
    (call,) = core.calls
    everything = call.request.SerializeToString() + repr(call.metadata).encode()
    assert ELSEWHERE[:9].encode() in everything
    assert ELSEWHERE[:10].encode() not in everything


def test_an_own_key_can_be_imported_where_its_check_digits_hold(core):
    core.answer("CreateApiKey", pb.CreateApiKeyResponse(api_key=key(imported=True)))
    ours = generate_key()
    text_of(run("key", "create", ACCOUNT_ID, "--import", "-", standard_input=ours.encode()))
    assert core.request.imported.digest == digest_key(ours)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        b"short",
        b"two-good-keys\ntwo-good-keys",
        b"a-key-and-a-blank-line\n\n",
        b"a key with blanks",
        "schlüssel-schlüssel".encode(),
        b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8",
        b"x" * 513,
        b"x" * 100_000,
        b"hsms_" + b"0" * 36,
    ],
)
def test_what_is_no_key_is_refused_before_the_core_is_asked_and_never_quoted(core, given):
    complaint = failure_of(run("key", "create", ACCOUNT_ID, "--import", "-", standard_input=given))
    assert complaint.startswith("standard input does not hold one API key")
    quoted = given.strip()[:8].decode("latin-1")
    assert not quoted or quoted not in complaint
    assert core.calls == []


def test_a_key_among_the_arguments_is_refused_and_not_quoted(core):
    complaint = failure_of(run("key", "create", ACCOUNT_ID, "--import", ELSEWHERE), status=2)
    assert "standard input" in complaint
    assert ELSEWHERE[:10] not in complaint
    assert core.calls == []


@pytest.mark.parametrize("given", [ELSEWHERE, SECRET])
@pytest.mark.parametrize("command", ["disable", "enable", "rotate", "delete"])
def test_a_key_in_the_place_of_its_id_goes_nowhere(core, command, given):
    complaint = failure_of(run("key", command, given), status=2)
    assert "not the id of a key" in complaint
    assert given[:10] not in complaint
    assert core.calls == []


@pytest.mark.parametrize("given", [ELSEWHERE, SECRET])
def test_a_key_as_an_argument_too_many_is_not_quoted(core, given):
    complaint = failure_of(run("key", "create", ACCOUNT_ID, given), status=2)
    assert "unexpected extra argument" in complaint
    assert given[:10] not in complaint


def test_an_own_key_in_the_place_of_a_command_is_not_quoted():
    complaint = failure_of(run("key", SECRET), status=2)
    assert complaint.startswith("No such command 'hsms_…'")


def test_list_shows_keys_and_the_next_page(core):
    ending = key(enabled=True)
    ending.expires_at.FromJsonString("2026-06-01T00:00:00Z")
    core.answer("ListApiKeys", pb.ListApiKeysResponse(api_keys=[key(), ending], next_page_token="bmV4dA"))
    shown = json_of(run("key", "list", ACCOUNT_ID, "--page-size", "2", "--json"))
    assert shown == {
        "api_keys": [AS_JSON, {**AS_JSON, "expires_at": "2026-06-01T00:00:00.000Z"}],
        "next_page_token": "bmV4dA",
    }
    assert core.request == pb.ListApiKeysRequest(account_id=ACCOUNT_ID, page_size=2)


def test_list_is_a_table_for_people(core):
    core.answer("ListApiKeys", pb.ListApiKeysResponse(api_keys=[key(imported=True)]))
    header, row = text_of(run("key", "list", ACCOUNT_ID)).splitlines()
    assert header.split() == ["id", "name", "prefix", "enabled", "imported", "created", "expires"]
    assert row.split() == [KEY_ID, "till", "hsms_ssss", "yes", "yes", "2026-05-29T10:15:00.007Z", "-"]


@pytest.mark.parametrize(
    ("command", "method", "response"),
    [
        ("disable", "DisableApiKey", pb.DisableApiKeyResponse),
        ("enable", "EnableApiKey", pb.EnableApiKeyResponse),
    ],
)
def test_disable_and_enable_answer_the_key_as_it_is_now(core, command, method, response):
    core.answer(method, response(api_key=key()))
    assert json_of(run("key", command, KEY_ID, "--json")) == AS_JSON
    assert [(call.method, call.request.api_key_id) for call in core.calls] == [(method, KEY_ID)]
    assert ["enabled", "yes"] in [line.split() for line in text_of(run("key", command, KEY_ID)).splitlines()]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ([], 86_400),
        (["--overlap", "0s"], 0),
        (["--overlap", "90m"], 5_400),
        (["--overlap", "24h"], 86_400),
        (["--overlap", "30d"], 2_592_000),
    ],
)
def test_rotate_answers_the_successor_and_the_end_of_the_old_key(core, options, seconds):
    old = key(id=OLD_ID)
    old.expires_at.FromJsonString("2026-05-30T10:15:00.007Z")
    core.answer("RotateApiKey", pb.RotateApiKeyResponse(api_key=key(), secret=SECRET, replaced=old))
    assert json_of(run("key", "rotate", OLD_ID, *options, "--json")) == {
        "api_key_id": KEY_ID,
        "account_id": ACCOUNT_ID,
        "api_key": SECRET,
        "prefix": "hsms_ssss",
        "replaced_api_key_id": OLD_ID,
        "replaced_expires_at": "2026-05-30T10:15:00.007Z",
    }
    assert core.request.api_key_id == OLD_ID
    assert core.request.HasField("overlap")
    assert core.request.overlap.ToSeconds() == seconds
    assert core.request.idempotency_key


@pytest.mark.parametrize(
    "overlap", ["", "24", "h", "-1h", "1.5h", "31d", "٣h", "24h ", "999999999d", "24h\n"]
)
def test_rotate_refuses_an_overlap_that_is_none(core, overlap):
    assert "0s to 30d" in failure_of(run("key", "rotate", OLD_ID, "--overlap", overlap), status=2)
    assert core.calls == []


def test_delete_says_what_it_deleted(core):
    core.answer("DeleteApiKey", pb.DeleteApiKeyResponse())
    assert json_of(run("key", "delete", KEY_ID, "--json")) == {"api_key_id": KEY_ID, "deleted": True}
    assert text_of(run("key", "delete", KEY_ID)) == f"Deleted the key {KEY_ID}.\n"
    assert [call.request.api_key_id for call in core.calls] == [KEY_ID, KEY_ID]
