"""Where a webhook may go: what a URL names, and which addresses are refused."""

import functools
import ipaddress
import re
from collections.abc import Collection, Sequence, Set
from typing import NamedTuple

from yarl import URL

from hydrasms_base.networks import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedTarget(OSError):
    """A webhook may not go there; the message says why, to the receiver's owner."""


class Range(NamedTuple):
    """Addresses that are refused, and where it is written that they are no host on the internet."""

    network: Network
    what: str
    source: str


class Target(NamedTuple):
    """What a URL names."""

    url: URL
    host: str
    """A name in lower case, or an address in its canonical form without brackets."""
    port: int
    address: Address | None
    """The address, where the host is one."""


# IANA's registries of special-purpose addresses (RFC 6890, RFC 8190), and what lies beside them.
_REFUSED = (
    ("0.0.0.0/8", "this network", "RFC 791, 3.2"),
    ("10.0.0.0/8", "private use", "RFC 1918"),
    ("100.64.0.0/10", "shared by carriers' NAT", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122, 3.2.1.3"),
    ("168.63.129.16/32", "a cloud host's own services", "Azure: What is IP address 168.63.129.16"),
    ("169.254.0.0/16", "link-local, a cloud's metadata", "RFC 3927"),
    ("172.16.0.0/12", "private use", "RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments", "RFC 6890, 2.1"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", "AS112", "RFC 7535"),
    ("192.52.193.0/24", "automatic multicast tunnels", "RFC 7450"),
    ("192.88.99.0/24", "6to4 relays, deprecated", "RFC 7526"),
    ("192.168.0.0/16", "private use", "RFC 1918"),
    ("192.175.48.0/24", "AS112", "RFC 7534"),
    ("198.18.0.0/15", "benchmarks", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("240.0.0.0/4", "reserved, broadcast", "RFC 1112, 4; RFC 8190"),
    ("::/128", "unspecified", "RFC 4291"),
    ("::1/128", "loopback", "RFC 4291"),
    ("::/96", "IPv4-compatible, deprecated", "RFC 4291, 2.5.5.1"),
    ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
    ("64:ff9b:1::/48", "translation within a network", "RFC 8215"),
    ("100::/64", "discarded", "RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    ("2001::/32", "Teredo", "RFC 4380"),
    ("2001::/23", "IETF protocol assignments, ORCHID among them", "RFC 2928, RFC 4843, RFC 7343"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4", "RFC 3056, RFC 7526"),
    ("2620:4f:8000::/48", "AS112", "RFC 7534"),
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "SRv6 segments", "RFC 9602"),
    ("fc00::/7", "private use", "RFC 4193"),
    ("fe80::/10", "link-local", "RFC 4291"),
    ("fec0::/10", "site-local, deprecated", "RFC 3879"),
    ("ff00::/8", "multicast", "RFC 4291"),
)
REFUSED = tuple(Range(ipaddress.ip_network(network), what, source) for network, what, source in _REFUSED)

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_GLOBAL_UNICAST = Range(ipaddress.IPv6Network("::/0"), "no global unicast", "RFC 4291, 2.4")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is really meant."""
_THIS_HOST = tuple(ipaddress.ip_network(network) for network in ("0.0.0.0/8", "127.0.0.0/8", "::/127"))

# Ports of protocols in which the lines of a request could be taken for commands: "port blocking" of the Fetch
# standard, https://fetch.spec.whatwg.org/#port-blocking.
# fmt: off
_BAD_PORTS = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
))
# fmt: on

_PORTS = {"http": 80, "https": 443}
_MAX_URL = 2_000
_URL = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?:#.*)?")
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]|\s")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# The URL standard takes a host for an IPv4 address where its last label looks like a number, and so do resolvers.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_NOT_PUBLIC = "The URL's host is no address on the public internet, and the operator has not allowed it."


@functools.lru_cache(maxsize=1_024)
def target_of(url: str) -> Target:
    """Return what a URL names; raises RefusedTarget.

    Only one way to write a host is taken: a name in ASCII, four decimal numbers with dots, or IPv6 in brackets. All
    else that some resolver somewhere takes for an address (127.1, 0x7f000001, 017700000001, full-width digits, zone
    ids) is refused, and so are user names and passwords.
    """
    found = _URL.fullmatch(url) if len(url) <= _MAX_URL and not _UNPRINTABLE.search(url) else None
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in _PORTS:
        raise RefusedTarget("The URL must be http://HOST/… or https://HOST/…, without spaces.")
    authority = _AUTHORITY.fullmatch(found["authority"])
    if authority is None:
        raise RefusedTarget(
            "The URL's host must be a name in ASCII letters (xn--… where it has others) or an address; "
            "a user name or password is not taken."
        )
    port = int(authority["port"] or _PORTS[scheme])
    if port > 65_535 or port in _BAD_PORTS:
        raise RefusedTarget("The URL's port is not one that webhooks are sent to.")
    address = _literal(authority["v6"], authority["name"])
    host = str(address) if address is not None else authority["name"].lower()
    return Target(_agreed(scheme, host, port, found["rest"]), host, port, address)


def _literal(v6: str | None, name: str) -> Address | None:
    """Return the address that a host is; None where it is a name."""
    try:
        if v6 is not None:
            return ipaddress.IPv6Address(v6)
        labels = name.lower().removesuffix(".").split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return ipaddress.IPv4Address(name)
    except ValueError:
        raise RefusedTarget(
            "An address in the URL must be four decimal numbers with dots between them, or IPv6 in brackets."
        ) from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise RefusedTarget("The URL's host is not a name that can be looked up.")
    return None


def _agreed(scheme: str, host: str, port: int, rest: str) -> URL:
    """Return the URL for the HTTP client, having made sure that it reads the same host and port."""
    authority = f"[{host}]" if ":" in host else host
    if port != _PORTS[scheme]:
        authority = f"{authority}:{port}"
    try:
        # What is in ASCII is sent as it is written: some receivers sign it.
        url = URL(f"{scheme}://{authority}{rest or '/'}", encoded=rest.isascii())
        if url.raw_host == host and url.port == port:
            return url
    except ValueError:
        pass
    raise RefusedTarget("The URL can be read in more than one way; write its host and port plainly.")


def meant(address: Address) -> Address:
    """Return the address that packets to one end up at: the IPv4 address within IPv4-mapped and NAT64 ones."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


@functools.lru_cache(maxsize=1_024)
def refused_range(address: Address) -> Range | None:
    """Return why an address is no host on the public internet; None where it may be one."""
    address = meant(address)
    for each in REFUSED:
        if address in each.network:
            return each
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return _NOT_GLOBAL_UNICAST
    return None


class Guard:
    """Says to which addresses webhooks may go: those on the public internet, and those that the operator allows.

    `own_ports` are those that this server itself listens on: they are refused on this host whatever is allowed. The
    collection may still grow.
    """

    def __init__(self, allowed: Sequence[Network] = (), own_ports: Set[int] = frozenset()) -> None:
        self._allowed = tuple(allowed)
        self._own_ports = own_ports
        # Of an address alone, for the ports may still grow.
        self._may_be_reached = functools.lru_cache(maxsize=1_024)(self._is_public_or_allowed)

    def require(self, address: str, port: int) -> None:
        """Return where a connection may be made to an address, in its textual form; raises RefusedTarget."""
        if not self._permits(_parsed(address), port):
            raise RefusedTarget(_NOT_PUBLIC)

    def require_all(self, addresses: Collection[str], port: int) -> None:
        """Return where a name's addresses, of which there is at least one, are all permitted; raises RefusedTarget.

        One bad answer refuses them all: whoever mixes them wants to see which one is taken.
        """
        if not addresses or not all(self._permits(_parsed(each), port) for each in addresses):
            raise RefusedTarget(
                "The URL's host has no address on the public internet, and the operator has not allowed it."
            )

    def _permits(self, address: Address | None, port: int) -> bool:
        if address is None:
            return False
        if port in self._own_ports and any(meant(address) in network for network in _THIS_HOST):
            return False
        return self._may_be_reached(address)

    def _is_public_or_allowed(self, address: Address) -> bool:
        address = meant(address)
        if address.is_unspecified or address.is_multicast:
            return False
        return any(address in network for network in self._allowed) or refused_range(address) is None


@functools.lru_cache(maxsize=1_024)
def _parsed(address: str) -> Address | None:
    """Return an address; None where it is none, or is only one of some interface."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return None if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id else parsed
