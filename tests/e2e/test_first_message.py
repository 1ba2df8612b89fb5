"""The first minutes of a newcomer, with the real programs."""

import contextlib
import json
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.served import Served, printed_key, served, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("first") / "var") as running:
        yield running


def demo_account(server: Served) -> str:
    return server.send(printed_key(server)).body["owner"]


def printed_curl(server: Served) -> str:
    lines = server.output_file.read_text().splitlines()
    return next(line.strip() for line in lines if line.strip().startswith("curl"))


def test_the_printed_curl_is_answered_as_documented(server):
    done = subprocess.run(
        [*shlex.split(printed_curl(server)), "-sS", "-w", "\n%{http_code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    body, status = done.stdout.rsplit("\n", 1)
    assert status == "200"
    answer = json.loads(body)
    assert list(answer) == ["ID", "sent_from", "sent_to", "sent_to_parsed", "content", "owner", "creditCost"]
    assert answer["sent_from"] == "+2899682626"
    assert answer["sent_to"] == "+447700900000"
    assert answer["sent_to_parsed"] == {
        "isValid": True,
        "phoneNumber": "+447700900000",
        "countryIso2": "GB",
        "countryIso3": "GBR",
        "countryCode": "+44",
    }
    assert answer["content"] == "Hello from Hep.gg"
    assert answer["creditCost"] == 1


def test_the_text_reaches_the_simulated_phone_and_the_books(server):
    sent = server.send(printed_key(server), "to a phone", recipient="+447700900111").body
    wait_until(
        lambda: any(
            m["id"] == sent["ID"] and m["status"] == "delivered" for m in server.messages(sent["owner"])
        ),
        what="delivery",
    )
    texts = server.json("simulate", "inbox", "+447700900111")["texts"]
    assert [text["content"] for text in texts] == ["to a phone"]
    spends = [t for t in server.transactions(sent["owner"]) if t["message_id"] == sent["ID"]]
    assert [(t["kind"], t["amount"]) for t in spends] == [("spend", -1)]
    assert server.json("ledger", "verify")["ok"] is True


def test_a_refused_message_is_refunded_once(server):
    account_id, key = server.account(credits=5)
    sent = server.send(key, recipient="+447700900901").body
    wait_until(lambda: server.messages(account_id)[0]["status"] == "rejected", what="the refusal")
    kinds = [
        (t["kind"], t["amount"]) for t in server.transactions(account_id) if t["message_id"] == sent["ID"]
    ]
    assert sorted(kinds) == [("refund", 1), ("spend", -1)]
    assert server.json("credits", "balance", account_id) == {"balance": 5}


def test_the_example_program_sends_over_tcp_from_another_process(server):
    account_id, _key = server.account(credits=5)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "clients/python/examples/send.py"),
            account_id,
            "+447700900222",
            "Hello, gRPC",
        ],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    message = server.messages(account_id)[0]
    assert message["content"] == "Hello, gRPC"
    assert message["id"] in done.stdout


def test_a_second_server_on_the_data_directory_is_refused_in_one_line(server):
    other = Served(server.data_dir)
    done = other.run("serve")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "already uses the data directory" in done.stderr


@pytest.mark.parametrize("port", ["http_port", "grpc_port"])
def test_a_busy_port_is_one_line(server, tmp_path, port):
    other = Served(tmp_path / "var", **{port: getattr(server, port)})
    done = other.run("serve")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert f"port {getattr(server, port)} is in use" in done.stderr.splitlines()[-1]


def test_no_key_number_or_body_is_in_the_log(server):
    sent = server.send(printed_key(server), "a very private text", recipient="+447700900333")
    assert sent.status == 200
    server.send("hsms_wrong", "another private text", recipient="not-a-number")
    wait_until(lambda: sent.headers["x-request-id"] in server.log_file.read_text(), what="the request's line")
    wait_until(lambda: '"status":401' in server.log_file.read_text(), what="the refused request's line")
    log = server.log_file.read_text()
    for secret in (printed_key(server), "hsms_wrong", "private text", "447700900333", "not-a-number"):
        assert secret not in log


def test_sigterm_drains_and_exits_cleanly(tmp_path):
    with served(tmp_path / "var") as server:
        account_id, key = server.account(credits=50)
        for number in range(20):
            assert server.send(key, f"message {number}").status == 200
        assert server.terminate() == 0
        server.start()
        wait_until(
            lambda: all(m["status"] == "delivered" for m in server.messages(account_id)), what="delivery"
        )
        assert len(server.json("simulate", "inbox", "+447700900000")["texts"]) == 20


def test_an_unreadable_data_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    done = Served(tmp_path / "file").run("serve")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "data directory" in done.stderr


def test_a_database_newer_than_the_code_is_one_line(tmp_path):
    server = Served(tmp_path / "var")
    assert server.run("db", "upgrade").returncode == 0
    with contextlib.closing(sqlite3.connect(server.data_dir / "hydrasms.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        # It has taken something away that this code needs.
        connection.execute("INSERT INTO schema_floor VALUES (1, '9999')")
        connection.commit()
    for command in (["serve"], ["db", "upgrade"], ["ledger", "verify", "--offline"]):
        done = server.run(*command)
        assert done.returncode != 0
        assert done.stderr.count("\n") == 1
        assert "newer hydrasms" in done.stderr


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    server = Served(tmp_path / "var")
    server.data_dir.mkdir()
    (server.data_dir / "hydrasms.db").write_bytes(b"this is not a database" * 500)
    done = server.run("serve")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "cannot be used" in done.stderr


def test_without_a_core_every_command_says_so_in_one_line(tmp_path):
    done = Served(tmp_path / "var").run("account", "list")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
