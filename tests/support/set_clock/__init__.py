"""A clock of the time of day that a test sets for processes that it starts."""

import struct
from pathlib import Path


class SetClock:
    """The time of day as some processes see it: the machine's, and so many seconds on (or, below 0, back)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    @property
    def variables(self) -> dict[str, str]:
        """What a process that is to see it needs in its environment."""
        return {"PYTHONPATH": str(Path(__file__).parent), "SET_CLOCK_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """Set it; whoever looks from now on sees it."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("<q", seconds * 1_000_000_000))
