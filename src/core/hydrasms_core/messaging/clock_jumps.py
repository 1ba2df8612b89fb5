"""Notices when the time of day is set: leases and due times are kept in it, and mean something else from then on."""

from hydrasms_base.clock import Clock

_TOLERANCE_S = 1.0


class ClockJumps:
    """Holds the time of day against the clock that never jumps; what drifts slowly is no jump."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = self._measured()

    def seconds(self) -> float:
        """Return by how many seconds the time of day was set on (or, below 0, back) since the last look; else 0."""
        offset_s, before_s = self._measured(), self._offset_s
        self._offset_s = offset_s
        jump_s = offset_s - before_s
        return jump_s if abs(jump_s) > _TOLERANCE_S else 0.0

    def _measured(self) -> float:
        return self._clock.now_ms() / 1000 - self._clock.monotonic()
