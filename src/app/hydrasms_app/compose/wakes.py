"""What is called after a commit that workers have something to do about."""

from collections.abc import Callable
from typing import NamedTuple


class Wakes(NamedTuple):
    """What wakes the loops of workers, by what there is to do."""

    messages: Callable[[], None]
    """There is a message to hand on."""
    texts: Callable[[], None]
    """There is something to reply to or to push."""
