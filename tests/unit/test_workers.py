"""What several workers share: orders, settings, ports, and one exposition of all their metrics."""

import contextlib
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings, load_settings
from hydrasms_app.workers.exposition import merged
from hydrasms_app.workers.orders import Orders, environment
from hydrasms_app.workers.ports import shared_ports
from hydrasms_base.metrics import Metrics
from tests.support.served import free_port

OTHERS = {
    "http_host": "::1",
    "http_port": 1234,
    "grpc_host": "localhost",
    "grpc_port": 2345,
    "grpc_socket": Path("/a folder/core.sock"),
    "ops_host": "::1",
    "ops_port": 3456,
    "data_dir": Path("some where"),
    "database_url": "postgresql://user:word%20with%24signs@host:5/name?x=y",
    "HYDRASMS_CORE": "unix:/a folder/core.sock",
    "HYDRASMS_TOKEN_FILE": Path("token"),
    "HYDRASMS_SEALING_KEY_FILE": Path("sealing"),
    "tls_cert": Path("cert"),
    "tls_key": Path("key"),
    "tls_ca": Path("ca"),
    "tls_name": "core",
    "tls_allowed": "one,two",
    "coalesce": False,
    "lanes": 4,
    "workers": 3,
    "sent_from": "Ünï 漢字",
    "replies_per_hour": 7,
    "webhook_allow": "10.1.0.0/16",
    "log_level": "warning",
    "log_format": "text",
    "reflection": True,
}


@pytest.fixture
def bare(monkeypatch):
    """An environment without settings of ours."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HYDRASMS_{name.upper()}", raising=False)
    for name in ("HYDRASMS_CORE", "HYDRASMS_TOKEN_FILE", "HYDRASMS_SEALING_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def in_environment(monkeypatch, settings, **changed):
    for name, value in environment(settings, **changed).items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_a_worker_finds_every_setting_of_its_parent(bare):
    settings = load_settings(**OTHERS)
    assert settings.model_fields_set == set(Settings.model_fields)
    assert in_environment(bare, settings) == settings


def test_a_worker_finds_the_defaults_of_its_parent_and_what_was_changed(bare):
    found = in_environment(bare, load_settings(), http_port=99)
    assert found == load_settings(http_port=99)


def test_orders_survive_the_command_line():
    orders = Orders("edge", 1, 2, 3, 4, dispatcher=True, demo=False)
    assert Orders.parse(orders.command()[-1]) == orders


def _sharing(**changed):
    settings = load_settings(http_port=free_port(), grpc_port=free_port(), workers=3, **changed)
    return settings, shared_ports(settings, core=True)


def test_every_worker_has_a_socket_of_its_own_on_the_port_and_all_get_connections(bare):
    settings, sharing = _sharing()
    with sharing as ports, contextlib.ExitStack() as stack:
        assert (ports.http_port, ports.grpc_port) == (settings.http_port, settings.grpc_port)
        for _ in range(120):
            stack.enter_context(socket.create_connection(("127.0.0.1", ports.http_port), timeout=10))
        accepted = [len(list(_accepted(stack, listening))) for listening in ports.http]
        assert sum(accepted) == 120
        # Shared out at random: fewer than ten of a hundred and twenty has no chance.
        assert min(accepted) >= 10


def _accepted(stack, listening):
    listening.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield stack.enter_context(listening.accept()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_any_free_port_is_one_for_all(bare, host):
    settings = load_settings(http_host=host, http_port=0, grpc_host=host, grpc_port=0, workers=2)
    with shared_ports(settings, core=True) as ports:
        assert {listening.getsockname()[1] for listening in ports.http} == {ports.http_port}
        assert ports.taken == {"http_port": ports.http_port, "grpc_port": ports.grpc_port}
        assert 0 not in ports.taken.values()


def test_an_edge_takes_no_port_for_a_core(bare):
    settings = load_settings(http_port=0, grpc_socket=Path("unused"), workers=2)
    with shared_ports(settings, core=False) as ports:
        assert ports.taken == {"http_port": ports.http_port}


@pytest.mark.parametrize("setting", ["http_port", "grpc_port"])
def test_a_port_that_is_shared_already_is_refused(bare, setting):
    settings, sharing = _sharing()
    with sharing as ports:
        taken = {setting: ports.taken[setting]}
        other = load_settings(**({"http_port": 0, "grpc_port": 0, "workers": 2} | taken))
        with pytest.raises(Problem, match=f"HYDRASMS_{setting.upper()}"):
            shared_ports(other, core=True).__enter__()
        # Nor may one that would have it alone.
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", ports.taken[setting]))
    # And it is free again afterwards.
    socket.create_server(("127.0.0.1", getattr(settings, setting))).close()


@pytest.mark.parametrize("setting", ["http_port", "grpc_port"])
def test_a_port_that_somebody_has_alone_is_refused(bare, setting):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = {setting: holder.getsockname()[1]}
        settings = load_settings(**({"http_port": 0, "grpc_port": 0, "workers": 2} | taken))
        with pytest.raises(Problem, match=f"HYDRASMS_{setting.upper()}"):
            shared_ports(settings, core=True).__enter__()


def test_workers_cannot_share_a_unix_socket(bare):
    with pytest.raises(Problem, match="HYDRASMS_GRPC_SOCKET"):
        shared_ports(load_settings(grpc_socket=Path("core.sock"), workers=2), core=True).__enter__()


def _report(sends):
    metrics = Metrics()
    counter = metrics.counter("sends", 'Sends, by "route".', ("route",))
    counter.labels('/a "quoted\\ {path}').inc(sends)
    metrics.gauge("waiting", "How many wait.").set(sends / 2)
    metrics.histogram("seconds", "Times.", ("route",)).labels("/").observe(0.3)
    return metrics.render().decode()


def test_the_metrics_of_all_workers_are_one_exposition_with_a_label_more():
    families = list(text_string_to_metric_families(merged({0: _report(3), 1: _report(4), 2: None}).decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = {
        (sample.name, sample.labels.get("worker"), sample.labels.get("route")): sample.value
        for family in families
        for sample in family.samples
    }
    route = '/a "quoted\\ {path}'
    assert samples["hydrasms_sends_total", "0", route] == 3
    assert samples["hydrasms_sends_total", "1", route] == 4
    assert samples["hydrasms_waiting", "1", None] == 2
    assert samples["hydrasms_seconds_count", "0", "/"] == 1
    assert [samples["hydrasms_worker_up", number, None] for number in "012"] == [1, 1, 0]
    assert not any(worker is None for _, worker, _ in samples)
    assert {family.name: family.type for family in families}["hydrasms_sends"] == "counter"


def test_one_workers_exposition_loses_nothing():
    def samples_of(text):
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    report = _report(1)
    kept = [
        sample._replace(labels={name: value for name, value in sample.labels.items() if name != "worker"})
        for sample in samples_of(merged({0: report}).decode())
        if sample.name != "hydrasms_worker_up"
    ]
    assert sorted(map(str, kept)) == sorted(map(str, samples_of(report)))
