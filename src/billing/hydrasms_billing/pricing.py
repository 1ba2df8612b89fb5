"""What a message costs."""

CHARACTERS_PER_CREDIT = 160


def price(content: str) -> int:
    """Return the credits that a text costs: one for each 160 characters begun, and one at least.

    Characters are Unicode code points; how a carrier encodes or splits the text changes nothing.
    """
    return max(1, -(-len(content) // CHARACTERS_PER_CREDIT))
