"""Where the core is: what HYDRASMS_CORE may say, and what gRPC is told."""

import ipaddress
from dataclasses import dataclass

from hydrasms_app.problems import Problem

_UNIX, _DNS = "unix:", "dns:"


@dataclass(frozen=True, slots=True)
class CoreAddress:
    """One core, or several that serve alike."""

    text: str
    """As the operator wrote it."""
    target: str
    """As gRPC wants it."""
    on_this_host: bool
    """Whether nothing that is sent there leaves this host."""
    is_socket: bool = False
    """Whether it is a Unix socket, or several."""
    is_list: bool = False
    """Whether several addresses were named, so that none of them is the name of all."""

    def require_secrecy(self) -> None:
        """Raise Problem where a token that is sent there would cross a network in the clear."""
        if not self.on_this_host:
            raise Problem(
                f"the core at {self.text} is on another host, and the service token would travel there in the "
                "clear: set HYDRASMS_TLS_CERT, HYDRASMS_TLS_KEY and HYDRASMS_TLS_CA, or run this on the core's host"
            )


def parse_core_address(text: str) -> CoreAddress:
    """Return what HYDRASMS_CORE means; raises Problem.

    It is `HOST:PORT`, `unix:PATH`, `dns:///NAME:PORT` (as many cores as the name has addresses), or several of the
    first or second kind with commas between them.
    """
    parts = [part.strip() for part in text.split(",")]
    if all(part.startswith(_UNIX) for part in parts):
        paths = [_socket_path(part, text) for part in parts]
        target = _UNIX + ",".join(paths)
        return CoreAddress(text, target, on_this_host=True, is_socket=True, is_list=len(parts) > 1)
    if len(parts) == 1 and text.startswith(_DNS):
        name, _ = _host_and_port(text.removeprefix(_DNS).removeprefix("///"), text)
        return CoreAddress(text, text, on_this_host=is_loopback(name))
    pairs = [_host_and_port(part, text) for part in parts]
    on_this_host = all(is_loopback(host) for host, _ in pairs)
    if len(pairs) == 1:
        return CoreAddress(text, text, on_this_host)
    return CoreAddress(text, _list_target(pairs, text), on_this_host, is_list=True)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this one for certain: a loopback address, or the name that stands for one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _socket_path(part: str, text: str) -> str:
    path = part.removeprefix(_UNIX)
    # unix:///absolute is the form that has an empty authority, as a URL has.
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path or path.startswith("//"):
        raise _wrong(text)
    return path


def _host_and_port(part: str, text: str) -> tuple[str, int]:
    host, _, port = part.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise _wrong(text)
    bare = host.removeprefix("[").removesuffix("]")
    if "/" in bare or (":" in bare) != (bare != host):
        raise _wrong(text)
    return bare, int(port)


def _list_target(pairs: list[tuple[str, int]], text: str) -> str:
    """Return the target of several addresses, which gRPC takes only where all are of one family."""
    try:
        addresses = [
            (ipaddress.ip_address("127.0.0.1" if host == "localhost" else host), port) for host, port in pairs
        ]
    except ValueError:
        raise Problem(
            f"HYDRASMS_CORE may list addresses, not names, and {text!r} has one: "
            "give the name all the addresses and say dns:///NAME:PORT"
        ) from None
    versions = {address.version for address, _ in addresses}
    if versions == {4}:
        return "ipv4:" + ",".join(f"{address}:{port}" for address, port in addresses)
    if versions == {6}:
        return "ipv6:" + ",".join(f"[{address}]:{port}" for address, port in addresses)
    raise Problem(f"HYDRASMS_CORE may list IPv4 or IPv6 addresses, not both: {text!r}")


def _wrong(text: str) -> Problem:
    return Problem(
        "HYDRASMS_CORE must be HOST:PORT, unix:PATH, dns:///NAME:PORT, or several of one kind with commas, "
        f"not {text!r}"
    )
