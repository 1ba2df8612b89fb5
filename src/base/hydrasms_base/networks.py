"""Networks by their addresses, as an operator writes them."""

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list with commas between them; raises ValueError, which says what is wrong."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(f"{part!r} is no network{_meant_instead(part)}") from None
    return tuple(found)


def _meant_instead(part: str) -> str:
    try:
        return f": did you mean {ipaddress.ip_network(part, strict=False)}?"
    except ValueError:
        return "; write 10.1.0.0/16, fd00:1::/32 or a single address"
