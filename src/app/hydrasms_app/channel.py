"""How a channel to the core behaves, whoever opens it: the edge or the command line."""

import json
from collections.abc import Sequence
from typing import Any

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
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


def channel_options(method_config: Sequence[dict[str, Any]] = ()) -> Options:
    """Return the options of a channel whose methods are configured as given (gRPC's service config)."""
    config = {
        # Every core that is there gets its share, and one that says that it is about to end gets no more.
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": list(method_config),
    }
    return (("grpc.service_config", json.dumps(config)), *_OPTIONS)
