"""Which carriers there are, and which one a message leaves through."""

from collections.abc import Sequence

from hydrasms_core.carriers.base import Carrier


class Carriers:
    """The carriers of this process, by name. Raises ValueError for none, and for two of one name."""

    def __init__(self, carriers: Sequence[Carrier]) -> None:
        self._by_name = {carrier.name: carrier for carrier in carriers}
        if not carriers or len(self._by_name) != len(carriers):
            raise ValueError("there must be at least one carrier, each with its own name")
        self._first = carriers[0]

    def named(self, name: str) -> Carrier:
        """Return the carrier of a name; a KeyError where there is none."""
        return self._by_name[name]

    def route(self, recipient: str) -> Carrier:
        """Return the carrier that a message to this recipient leaves through: so far always the first."""
        return self._first
