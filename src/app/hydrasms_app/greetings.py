"""What a server says on standard output once it is up: where everything is and how to begin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydrasms_app.settings import Settings

if TYPE_CHECKING:  # The parent of several workers greets as well, and has no use for all that these import.
    from hydrasms_app.compose import Running, RunningCore, RunningEdge, RunningWorker

_FIRST_BODY = '-d "recipient=+447700900000" -d "content=Hello from Hep.gg"'


def everything(settings: Settings, server: "Running") -> str:
    """Greet from a server that is all in one."""
    return _all_in_one(settings, server.http_port, server.core_addresses, server.demo_key)


def workers(settings: Settings, http_port: int, up: Sequence[Mapping[str, Any]]) -> str:
    """Greet from several workers, of which each has said something of itself."""
    return _all_in_one(settings, http_port, up[0]["core_addresses"], up[0]["demo_key"], _workers_line(up))


def core(settings: Settings, server: "RunningCore") -> str:
    """Greet from a core."""
    return f"hydrasms core is up.\n{_core_line(settings, server.core_addresses)}"


def edge(settings: Settings, server: "RunningEdge") -> str:
    """Greet from an edge."""
    return _edge(settings, server.http_port)


def edges(settings: Settings, http_port: int, up: Sequence[Mapping[str, Any]]) -> str:
    """Greet from several edges on one port."""
    return _edge(settings, http_port, _workers_line(up))


def worker(_settings: Settings, _server: "RunningWorker") -> str:
    """Greet from a worker."""
    return "hydrasms worker is up."


def _all_in_one(
    settings: Settings, port: int, core_addresses: Sequence[str], key: str | None, *more: str
) -> str:
    base = f"http://{settings.http_host}:{port}"
    lines = ["hydrasms is up.", f"  REST API   {base}", _core_line(settings, core_addresses), *more]
    if settings.webhook_networks is None and isinstance(settings.database, Path):
        lines.append(
            "  webhooks   may go to this host as well, for a trial (HYDRASMS_WEBHOOK_ALLOW=none: they may not)"
        )
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


def _edge(settings: Settings, port: int, *more: str) -> str:
    base = f"http://{settings.http_host}:{port}"
    return "\n".join(["hydrasms edge is up.", f"  REST API   {base}", f"  for core   {settings.core}", *more])


def _workers_line(up: Sequence[Mapping[str, Any]]) -> str:
    return f"  workers    {len(up)} (processes {', '.join(str(said['pid']) for said in up)})"


def _core_line(settings: Settings, addresses: Sequence[str]) -> str:
    return f"  gRPC core  {', '.join(addresses)}  (service token: {settings.token_file})"
