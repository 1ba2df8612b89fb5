"""`hydrasms serve`, `db upgrade`, `ledger verify` and `version`."""

import errno
import json
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import hydrasms_app
from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms_app.migrate import Phase
from hydrasms_app.problems import Problem
from tests.support.fake_core import failure_of, json_of, one_line, run, running_core, text_of

RIGHT = pb.VerifyLedgerResponse(ok=True, accounts=3, transfers=12_000, messages=1)
WRONG = pb.VerifyLedgerResponse(
    accounts=3,
    transfers=12,
    messages=9,
    discrepancies=[
        pb.Discrepancy(
            kind=pb.DISCREPANCY_KIND_BALANCE, account_id="a1", subject="", detail="the balance is 5, not 7"
        )
    ],
)
WRONG_AS_JSON = {
    "ok": False,
    "accounts": 3,
    "transfers": 12,
    "messages": 9,
    "discrepancies": [
        {"kind": "balance", "account_id": "a1", "subject": "", "detail": "the balance is 5, not 7"}
    ],
}


@pytest.fixture
def core(monkeypatch, tmp_path):
    with running_core(monkeypatch, tmp_path) as core:
        yield core


class FakeRoles(types.ModuleType):
    """Stands in for hydrasms_app.roles: it remembers how it was called and opens nothing."""

    def __init__(self) -> None:
        super().__init__("hydrasms_app.roles")
        self.calls: list[tuple[Any, ...]] = []
        self.verified = RIGHT
        self.failure = None

    def serve(self, settings, role, *, dispatcher, demo):
        self._note("serve", settings, role, dispatcher, demo)

    def upgrade_database(self, settings, phase):
        self._note("upgrade_database", settings, phase)
        return "0001"

    def verify_offline(self, settings):
        self._note("verify_offline", settings)
        return self.verified

    def _note(self, *call):
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def roles(monkeypatch):
    roles = FakeRoles()
    monkeypatch.setattr(hydrasms_app, "roles", roles, raising=False)
    monkeypatch.setattr("hydrasms_app.database.upgrade_database", roles.upgrade_database)
    return roles


def test_serve_runs_with_the_defaults(roles, monkeypatch):
    monkeypatch.delenv("HYDRASMS_HTTP_PORT", raising=False)
    text_of(run("serve"))
    ((name, settings, role, dispatcher, demo),) = roles.calls
    assert (name, role, dispatcher, demo) == ("serve", None, True, True)
    assert settings.http_port == 8080


@pytest.mark.parametrize("role", ["core", "edge", "worker"])
def test_serve_runs_one_role_where_it_is_named(roles, role):
    text_of(run("serve", role))
    assert roles.calls[0][2] == role


@pytest.mark.parametrize(("arguments", "role"), [([], None), (["edge"], "edge")])
@pytest.mark.parametrize("by_flag", [True, False])
def test_serve_leaves_several_workers_to_their_parent(roles, monkeypatch, arguments, role, by_flag):
    supervised = []
    monkeypatch.setattr(
        "hydrasms_app.workers.supervisor.serve", lambda *called, **flags: supervised.append((called, flags))
    )
    if not by_flag:
        monkeypatch.setenv("HYDRASMS_WORKERS", "3")
    text_of(run("serve", *arguments, *(["--workers", "3"] if by_flag else []), "--no-demo"))
    (((settings, its_role), flags),) = supervised
    assert (settings.workers, its_role, flags) == (3, role, {"dispatcher": True, "demo": False})
    assert roles.calls == []


@pytest.mark.parametrize("role", ["core", "worker"])
def test_serve_refuses_several_workers_of_other_roles(role):
    assert "HYDRASMS_WORKERS=1" in failure_of(run("serve", role, "--workers", "2"))


@pytest.mark.parametrize("number", ["0", "65", "many"])
def test_serve_refuses_a_number_of_workers_that_makes_no_sense(roles, number):
    assert "workers" in failure_of(run("serve", "--workers", number), status=2)
    assert roles.calls == []


def test_serve_refuses_a_role_that_there_is_not(roles):
    complaint = failure_of(run("serve", "kernel"), status=2)
    assert "kernel" in complaint
    assert "core" in complaint
    assert roles.calls == []


def test_serve_puts_flags_over_the_environment(roles, monkeypatch, tmp_path):
    monkeypatch.setenv("HYDRASMS_HTTP_PORT", "9001")
    monkeypatch.setenv("HYDRASMS_GRPC_PORT", "9002")
    flags = [
        "--http-port",
        "0",
        "--http-host",
        "::1",
        "--grpc-host",
        "127.0.0.2",
        "--data-dir",
        str(tmp_path),
    ]
    more = ["--log-level", "debug", "--log-format", "json", "--no-dispatcher", "--no-demo"]
    text_of(run("serve", *flags, *more))
    ((_, settings, _, dispatcher, demo),) = roles.calls
    assert (settings.http_port, settings.grpc_port) == (0, 9002)
    assert (settings.http_host, settings.grpc_host) == ("::1", "127.0.0.2")
    assert (settings.data_dir, settings.log_level, settings.log_format) == (tmp_path, "debug", "json")
    assert (dispatcher, demo) == (False, False)


@pytest.mark.parametrize(
    "flags", [["--http-port", "65536"], ["--grpc-port", "-1"], ["--log-level", "loud"], ["--http-prot", "1"]]
)
def test_serve_refuses_flags_that_make_no_sense(roles, flags):
    complaint = failure_of(run("serve", *flags), status=2)
    assert flags[0] in complaint
    assert "serve --help" in complaint
    assert roles.calls == []


def test_a_setting_out_of_bounds_is_named_by_its_variable(roles, monkeypatch):
    monkeypatch.setenv("HYDRASMS_HTTP_PORT", "70000")
    assert "HYDRASMS_HTTP_PORT" in failure_of(run("serve"))
    assert roles.calls == []


def test_a_server_that_cannot_start_says_why_in_one_line(roles):
    roles.failure = Problem("port 8080 is in use:\n  name another")
    assert failure_of(run("serve")) == "port 8080 is in use: name another"


def test_a_refusal_of_the_system_is_one_line(roles):
    roles.failure = PermissionError(errno.EACCES, "Permission denied", "/var/hydrasms")
    assert failure_of(run("serve")) == "/var/hydrasms: Permission denied"


def test_an_unexpected_failure_is_one_line_that_quotes_nothing(roles):
    roles.failure = LookupError("hsms_secret and a text")
    complaint = failure_of(run("serve"))
    assert complaint.startswith("internal error: LookupError at test_cli_server.py:")
    assert "secret" not in complaint


def test_an_interrupted_command_ends_quietly(roles):
    roles.failure = KeyboardInterrupt()
    result = run("serve")
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize(
    ("flags", "expected"), [((), None), (("--phase", "pre"), Phase.PRE), (("--phase", "post"), None)]
)
def test_upgrade_says_which_revision_is_reached(roles, tmp_path, flags, expected):
    shown = text_of(run("db", "upgrade", "--data-dir", str(tmp_path), *flags))
    assert shown == "The database is at revision 0001.\n"
    ((name, settings, phase),) = roles.calls
    assert (name, settings.data_dir, phase) == ("upgrade_database", Path(tmp_path), expected)


def test_version_is_the_distributions():
    assert text_of(run("version")) == f"hydrasms {metadata.version('hydrasms')}\n"


def test_verify_answers_what_was_looked_at(core):
    core.answer("VerifyLedger", RIGHT)
    assert json_of(run("ledger", "verify", "--json")) == {
        "ok": True,
        "accounts": 3,
        "transfers": 12_000,
        "messages": 1,
        "discrepancies": [],
    }
    assert text_of(run("ledger", "verify")).splitlines() == [
        "Looked at 3 accounts, 12,000 transfers and 1 message.",
        "Nothing is wrong.",
    ]


def test_verify_exits_with_1_and_one_line_where_something_is_wrong(core):
    core.answer("VerifyLedger", WRONG)
    result = run("ledger", "verify", "--json")
    assert result.exit_code == 1
    assert one_line(result.stderr) == "the ledger does not add up: 1 difference"
    assert json.loads(result.stdout) == WRONG_AS_JSON


def test_verify_lists_what_is_wrong_for_people(core):
    core.answer("VerifyLedger", WRONG)
    result = run("ledger", "verify")
    assert result.exit_code == 1
    _, header, row = result.stdout.splitlines()
    assert header.split() == ["kind", "account", "subject", "detail"]
    assert row.split(maxsplit=3) == ["balance", "a1", "-", "the balance is 5, not 7"]


def test_verify_says_that_it_may_be_more_where_the_list_is_full(core):
    core.answer("VerifyLedger", pb.VerifyLedgerResponse(discrepancies=[pb.Discrepancy()] * 100))
    assert one_line(run("ledger", "verify").stderr).endswith("at least 100 differences")


def test_verify_offline_asks_no_core(roles, monkeypatch):
    monkeypatch.setenv("HYDRASMS_CORE", "127.0.0.1:1")
    assert json_of(run("ledger", "verify", "--offline", "--json"))["transfers"] == 12_000
    roles.verified = WRONG
    assert run("ledger", "verify", "--offline").exit_code == 1
    assert [name for name, _ in roles.calls] == ["verify_offline", "verify_offline"]


def test_verify_offline_says_why_it_cannot(roles):
    roles.failure = Problem("there is no database at var/hydrasms.db")
    assert failure_of(run("ledger", "verify", "--offline", "--json")) == (
        "there is no database at var/hydrasms.db"
    )
