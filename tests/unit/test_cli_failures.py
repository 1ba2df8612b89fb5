"""What a command says and how it exits where it cannot do what it was asked."""

import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from hydrasms.accounts.v1 import account_service_pb2
from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms_app.cli import connection
from hydrasms_app.problems import Problem
from hydrasms_core.errors import (
    DomainError,
    InsufficientCredits,
    InvalidArgument,
    NotFound,
    Overloaded,
)
from tests.support.fake_core import (
    BOUND_S,
    Failure,
    failure_of,
    json_of,
    one_line,
    run,
    running_core,
    text_of,
)

ACCOUNT_ID = "018f0000-0000-7000-8000-0000000000a1"
KEY_ID = "018f0000-0000-7000-8000-0000000000b2"
BALANCE = ("credits", "balance", ACCOUNT_ID)
GRANT = ("credits", "grant", ACCOUNT_ID, "5", "--reason", "test")
LOST = Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


def forms(*command):
    """Return a command for people and for programs: both must fail alike."""
    return [command, (*command, "--json")]


def test_a_core_that_is_not_there_is_named(core, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 0.1)
    monkeypatch.setenv("HYDRASMS_CORE", "127.0.0.1:1")
    for command in forms(*BALANCE):
        assert failure_of(run(*command)) == (
            "the core at 127.0.0.1:1 does not answer: is `hydrasms serve` running?"
        )


def test_a_token_file_that_is_not_there_is_named(core, monkeypatch, tmp_path):
    missing = tmp_path / "nowhere" / "service.token"
    monkeypatch.setenv("HYDRASMS_TOKEN_FILE", str(missing))
    for command in forms(*BALANCE):
        complaint = failure_of(run(*command))
        assert complaint.startswith(f"cannot read the service token {missing}: No such file or directory")
        assert "HYDRASMS_DATA_DIR" in complaint


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"\xff\xfe", "something else"),
        (b"a\x00b", "something else"),
    ],
)
def test_a_token_file_without_a_token_is_refused(core, content, why):
    core.token_file.write_bytes(content)
    complaint = failure_of(run(*BALANCE))
    assert complaint.startswith(f"cannot read the service token {core.token_file}: ")
    assert why in complaint


def test_a_wrong_token_is_refused_and_not_shown(core):
    core.token_file.write_text("another-servers-token\n")
    complaint = failure_of(run(*BALANCE))
    assert f"does not accept the service token of {core.token_file}" in complaint
    assert "INVALID_SERVICE_TOKEN" in complaint
    assert "another-servers-token" not in complaint


def test_the_first_of_several_tokens_is_sent(core):
    core.token_file.write_text(core.token_file.read_text() + "the-next-token\n")
    core.answer("GetBalance", pb.GetBalanceResponse(balance=7))
    assert json_of(run(*BALANCE, "--json")) == {"balance": 7}


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (NotFound("account"), "There is no such account. (NOT_FOUND)"),
        (
            InsufficientCredits(1, 2),
            "The message costs 2 credits and the balance is 1. (INSUFFICIENT_CREDITS)",
        ),
        (InvalidArgument("Too\nlong.", field="reason"), "Too long. (INVALID_ARGUMENT)"),
        (InvalidArgument("\x1b[31mRed."), "\\x1b[31mRed. (INVALID_ARGUMENT)"),
    ],
)
def test_a_domain_error_is_its_message_and_its_reason(core, error, complaint):
    core.answer("GetBalance", error)
    for command in forms(*BALANCE):
        assert failure_of(run(*command)) == complaint


def test_an_internal_error_names_the_request_that_the_log_knows(core):
    core.answer("GetBalance", DomainError("Internal error."))
    complaint = failure_of(run(*BALANCE))
    (call,) = core.calls
    assert complaint == f"Internal error. (INTERNAL, request id {call.metadata['x-request-id']})"


def test_a_core_of_another_version_is_told_apart(core):
    core.answer("GetBalance", Failure(grpc.StatusCode.UNIMPLEMENTED))
    assert "another version" in failure_of(run(*BALANCE))


def test_a_status_that_is_not_ours_is_shown_with_its_words(core):
    core.answer("GetBalance", Failure(grpc.StatusCode.DATA_LOSS, "broken\nwire"))
    assert failure_of(run(*BALANCE)) == f"the core at {core.address} answered DATA_LOSS: broken wire"


def test_a_core_that_does_not_answer_in_time_is_given_up(core):
    core.answer("GetBalance", core.never)
    with connection.connect() as connected, pytest.raises(Problem, match=r"did not answer within 0\.2 s"):
        connected.call(connected.billing.GetBalance, pb.GetBalanceRequest(), timeout_s=0.2)


@pytest.mark.parametrize("busy", [LOST, Overloaded()])
def test_a_creation_is_repeated_under_the_same_idempotency_key_when_the_core_is_unavailable(core, busy):
    made = account_service_pb2.CreateAccountResponse(api_key_secret="hsms_x")
    core.answer("CreateAccount", busy, busy, made)
    assert json_of(run("account", "create", "Pizza", "--json"))["api_key"] == "hsms_x"
    assert len(core.calls) == 3
    assert len({call.request.idempotency_key for call in core.calls}) == 1


def test_a_deletion_is_not_repeated(core):
    core.answer("DeleteApiKey", LOST, account_service_pb2.DeleteApiKeyResponse())
    assert "does not answer" in failure_of(run("key", "delete", KEY_ID))
    assert len(core.calls) == 1


def test_repeats_end(core):
    core.answer("GetBalance", Overloaded())
    assert failure_of(run(*BALANCE)) == "Too many requests are waiting. Try again in a moment. (UNAVAILABLE)"
    assert len(core.calls) == 4


@pytest.mark.parametrize("error", [LOST, Overloaded(), DomainError("Internal error.")])
@pytest.mark.parametrize(
    ("command", "method"),
    [
        (GRANT, "GrantCredits"),
        (("messages", "send", ACCOUNT_ID, "--to", "+447700900000", "Hi"), "SendMessage"),
    ],
)
def test_a_spend_that_may_have_happened_says_how_to_repeat_it_safely(core, command, method, error):
    core.answer(method, error)
    complaint = failure_of(run(*command))
    assert complaint.endswith(f"add --idempotency-key {core.calls[0].request.idempotency_key}")


def test_a_spend_that_was_refused_needs_no_such_advice(core):
    core.answer("GrantCredits", NotFound("account"))
    assert failure_of(run(*GRANT)) == "There is no such account. (NOT_FOUND)"


@pytest.mark.parametrize("address", ["10.0.0.1:50051", "core.example.com:50051", "[2001:db8::1]:50051"])
def test_the_token_never_leaves_the_host_in_the_clear(core, monkeypatch, address):
    monkeypatch.setenv("HYDRASMS_CORE", address)
    assert failure_of(run(*BALANCE)).startswith(f"the core at {address} is on another host")


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.9:1", "[::1]:1", "unix:/nowhere/core.sock"])
def test_every_address_of_this_host_is_tried(core, monkeypatch, address):
    monkeypatch.setattr(connection, "CONNECT_S", 0.1)
    monkeypatch.setenv("HYDRASMS_CORE", address)
    assert failure_of(run(*BALANCE)).startswith(f"the core at {address} does not answer")


@pytest.mark.parametrize("address", ["localhost", ":50051", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:65536"])
def test_an_address_that_is_none_is_refused(core, monkeypatch, address):
    monkeypatch.setenv("HYDRASMS_CORE", address)
    assert failure_of(run(*BALANCE)).startswith("HYDRASMS_CORE must be HOST:PORT")


def test_a_proxy_in_the_environment_is_not_used(core, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    core.answer("GetBalance", pb.GetBalanceResponse(balance=7))
    assert json_of(run(*BALANCE, "--json")) == {"balance": 7}


def test_an_argument_that_is_not_text_is_a_misuse(core):
    assert failure_of(run("credits", "balance", "\udcff"), status=2) == "an argument is not valid UTF-8"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ["Missing command", "`hydrasms --help`"]),
        (("key",), ["Missing command", "`hydrasms key --help`"]),
        (("acount",), ["No such command 'acount'", "'account'"]),
        (("account", "create"), ["Missing argument 'NAME'", "`hydrasms account create --help`"]),
        (("account", "create", "a", "--bogus"), ["--bogus", "`hydrasms account create --help`"]),
        (("account", "create", "a", "--plan", "gold"), ["--plan", "free", "premium"]),
        (("account", "update", "a", "--sending", "maybe"), ["--sending", "on", "off"]),
        (("messages", "send", "a", "Hello"), ["--to"]),
    ],
)
def test_a_misuse_is_one_line_with_a_hint_and_status_2(command, words):
    complaint = failure_of(run(*command), status=2)
    for word in words:
        assert word in complaint


@pytest.mark.parametrize(
    "command", [(), ("account",), ("account", "create"), ("key", "rotate"), ("ledger", "verify"), ("serve",)]
)
def test_help_is_help(command):
    shown = text_of(run(*command, "--help"))
    assert shown.startswith("Usage: ")
    assert "--help" in shown


def in_a_process(code, *, stdout=subprocess.PIPE, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **environment},
    )


def test_help_starts_without_the_database_the_server_or_the_settings():
    code = (
        "import sys\n"
        "from hydrasms_app.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as exit: assert exit.code == 0, exit.code\n"
        "heavy = 'sqlalchemy alembic starlette uvicorn hydrasms_core pydantic rich'.split()\n"
        "print('LOADED', [name for name in heavy if name in sys.modules], 'grpc' in sys.modules)"
    )
    out, err = in_a_process(code).communicate(timeout=BOUND_S)
    assert err == ""
    # That grpc is seen shows that the probe would see the others.
    assert out.splitlines()[-1] == "LOADED [] True"


def test_a_call_needs_neither_the_database_nor_the_server(core):
    core.answer("GetBalance", pb.GetBalanceResponse(balance=7))
    code = (
        "import sys\n"
        "from hydrasms_app.cli import main\n"
        f"try: main({['credits', 'balance', ACCOUNT_ID]!r})\n"
        "except SystemExit as exit: assert exit.code == 0, exit.code\n"
        "heavy = 'sqlalchemy alembic starlette uvicorn hydrasms_core'.split()\n"
        "print('LOADED', [name for name in heavy if name in sys.modules], 'pydantic' in sys.modules)"
    )
    out, err = in_a_process(code).communicate(timeout=BOUND_S)
    assert err == ""
    assert out.splitlines() == ["Balance: 7 credits.", "LOADED [] True"]


def test_a_reader_that_goes_away_is_no_failure_worth_a_word(core):
    core.answer("GetBalance", pb.GetBalanceResponse(balance=7))
    reading, writing = os.pipe()
    os.close(reading)
    command = f"from hydrasms_app.cli import main; main({list(BALANCE)!r})"
    process = in_a_process(command, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=BOUND_S)
    assert err == ""
    assert len(core.calls) == 1


def test_a_full_disk_is_one_line(core):
    core.answer("GetBalance", pb.GetBalanceResponse(balance=7))
    with Path("/dev/full").open("w") as full:
        process = in_a_process(f"from hydrasms_app.cli import main; main({list(BALANCE)!r})", stdout=full)
        _, err = process.communicate(timeout=BOUND_S)
    assert one_line(err) == "No space left on device"
    assert process.returncode == 1


def test_a_character_that_the_output_does_not_know_is_its_number(core):
    account = account_service_pb2.Account(id=ACCOUNT_ID, name="Müller 🍕")
    core.answer("GetAccount", account_service_pb2.GetAccountResponse(account=account))
    process = in_a_process(
        f"from hydrasms_app.cli import main; main({['account', 'show', ACCOUNT_ID]!r})",
        PYTHONIOENCODING="latin-1",
    )
    out, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, err) == (0, "")
    assert (
        out.encode("utf-8", "surrogateescape").splitlines()[1].split(maxsplit=1)[1]
        == b"M\xfcller \\U0001f355"
    )
