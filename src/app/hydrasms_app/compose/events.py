"""Where what happens is recorded, and who follows it."""

from hydrasms_app.compose.process import Process
from hydrasms_core.events.recording import RecordedHappenings


def happenings_of(process: Process) -> RecordedHappenings:
    """Return what records, in this process, what happens to accounts."""
    return RecordedHappenings(process.bell)
