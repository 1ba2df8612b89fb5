"""Random recipients and texts, as `send.lua` makes them."""

import random
import string

_LETTERS = string.ascii_letters + string.digits + "     " + ".,!?'£éü"


def random_text() -> str:
    """Return 20 to 300 characters that fit the GSM alphabet."""
    return "".join(random.choices(_LETTERS, k=random.randint(20, 300)))


def random_recipient() -> str:
    """Return a number of the range reserved for fiction on which the simulated carrier plays no trick."""
    return f"+447700900{random.randint(0, 900):03d}"
