"""Where the operator's settings let webhooks go."""

import contextlib

import pytest

from hydrasms_app.compose.process import Process
from hydrasms_app.compose.webhooks import allowed_networks, open_poster
from hydrasms_app.problems import Problem
from hydrasms_app.settings import load_settings
from hydrasms_base.networks import networks
from hydrasms_core.webhooks.ports import Refusal, Unanswered

POSTGRES = "postgresql://u:p@db/x"


@pytest.mark.parametrize(
    ("said", "database_url", "all_in_one", "allowed"),
    [
        (None, None, True, "127.0.0.0/8, ::1/128"),
        (None, None, False, ""),
        (None, POSTGRES, True, ""),
        (None, POSTGRES, False, ""),
        ("none", None, True, ""),
        (" None ", None, True, ""),
        ("10.0.0.0/8,fd00:1::/32", None, True, "10.0.0.0/8, fd00:1::/32"),
        ("10.0.0.0/8", POSTGRES, False, "10.0.0.0/8"),
    ],
)
def test_this_host_is_allowed_for_a_trial_alone(said, database_url, all_in_one, allowed):
    settings = load_settings(webhook_allow=said, database_url=database_url)
    assert allowed_networks(settings, all_in_one=all_in_one) == networks(allowed)


def test_a_network_that_is_none_is_told_at_start(monkeypatch):
    monkeypatch.setenv("HYDRASMS_WEBHOOK_ALLOW", "10.1.0.1/16")
    with pytest.raises(Problem, match=r"HYDRASMS_WEBHOOK_ALLOW: .*did you mean 10\.1\.0\.0/16\?"):
        load_settings()


async def test_the_poster_refuses_the_ports_of_this_process(tmp_path):
    settings = load_settings(data_dir=tmp_path, http_port=18_080, grpc_port=0, ops_port=18_081)
    async with contextlib.AsyncExitStack() as stack:
        process = Process(stack)
        poster = open_poster(process, settings, all_in_one=True)
        process.own_ports.add(18_082)
        for port in (18_080, 18_081, 18_082):
            outcome = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}")
            assert isinstance(outcome, Unanswered)
            assert outcome.refusal is Refusal.ADDRESS
        outcome = await poster.post("http://127.0.0.1:18083/", {}, b"{}")
        assert isinstance(outcome, Unanswered)
        assert outcome.refusal is Refusal.CONNECT
