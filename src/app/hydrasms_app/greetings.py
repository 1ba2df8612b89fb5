"""What a server says on standard output once it is up: where everything is and how to begin."""

from collections.abc import Sequence

from hydrasms_app.compose import Running, RunningCore, RunningEdge, RunningWorker
from hydrasms_app.settings import Settings

_FIRST_BODY = '-d "recipient=+447700900000" -d "content=Hello from Hep.gg"'


def everything(settings: Settings, server: Running) -> str:
    """Greet from a server that is all in one."""
    base = f"http://{settings.http_host}:{server.http_port}"
    key = server.demo_key
    lines = ["hydrasms is up.", f"  REST API   {base}", _core_line(settings, server.core_addresses)]
    if key is not None:
        lines += [
            f"  demo key   {key}",
            "",
            "Send a first message to a simulated phone:",
            "",
            f'  curl -X POST {base}/api/messages -H "Authorization: {key}" {_FIRST_BODY}',
            "",
            "Then look at the phone:  .venv/bin/hydrasms simulate inbox +447700900000",
        ]
    return "\n".join(lines)


def core(settings: Settings, server: RunningCore) -> str:
    """Greet from a core."""
    return f"hydrasms core is up.\n{_core_line(settings, server.core_addresses)}"


def edge(settings: Settings, server: RunningEdge) -> str:
    """Greet from an edge."""
    base = f"http://{settings.http_host}:{server.http_port}"
    return f"hydrasms edge is up.\n  REST API   {base}\n  for core   {settings.core}"


def worker(_settings: Settings, _server: RunningWorker) -> str:
    """Greet from a worker."""
    return "hydrasms worker is up."


def _core_line(settings: Settings, addresses: Sequence[str]) -> str:
    return f"  gRPC core  {', '.join(addresses)}  (service token: {settings.token_file})"
