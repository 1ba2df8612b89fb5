"""What phones may ask for, and of whom."""

from typing import NamedTuple


class Wish(NamedTuple):
    """What a phone wants of an account: its messages, or none of them."""

    account_id: str
    number: str
    """In canonical E.164."""
    wants: bool
