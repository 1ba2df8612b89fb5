"""The way to the core, whoever takes it: the edge or the command line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from hydrasms_app.core_address import CoreAddress, parse_core_address
from hydrasms_app.settings import Settings
from hydrasms_app.tls import CORE_NAME, load_identity

Options = tuple[tuple[str, Any], ...]

_OPTIONS: Options = (
    # A proxy named in the environment is for the web; the token must not pass through it.
    ("grpc.enable_http_proxy", 0),
    # A core that comes back is found within a second, and a connection that hangs is given up as soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 800),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # One that vanished or hangs is noticed within four seconds, whether or not anybody calls.
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # Without this one the ping is waited for for a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Way:
    """Where the core is, and how one gets there."""

    address: CoreAddress
    credentials: grpc.ChannelCredentials | None
    """The certificate to show and the authority to trust; None for a way that needs neither."""
    options: Options

    @property
    def has_identity(self) -> bool:
        """Whether the core learns who calls from a certificate, so that a token is not always needed."""
        return self.credentials is not None


def way_to_core(settings: Settings, method_config: Sequence[dict[str, Any]] = ()) -> Way:
    """Return the way that the settings name, for methods configured as gRPC's service config has it.

    Raises Problem, also where a token would leave this host in the clear.
    """
    address = parse_core_address(settings.core)
    # A Unix socket is guarded by its folder; nothing that goes through it can be read on a network.
    identity = None if address.is_socket else load_identity(settings)
    if identity is None:
        address.require_secrecy()
        return Way(address, None, _options(method_config))
    # One of several addresses is no name that a certificate could carry for all of them.
    name = settings.tls_name or (CORE_NAME if address.is_list else None)
    options = _options(method_config)
    if name is not None:
        options = (*options, ("grpc.ssl_target_name_override", name))
    return Way(address, identity.for_client(), options)


def _options(method_config: Sequence[dict[str, Any]]) -> Options:
    config = {
        # Every core that is there gets its share, and one that says that it is about to end gets no more.
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": list(method_config),
    }
    return (("grpc.service_config", json.dumps(config)), *_OPTIONS)
