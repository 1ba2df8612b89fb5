"""What an operator may set about the edge."""

from pydantic import BaseModel, ConfigDict, Field


class EdgeSettings(BaseModel):
    """The settings of one edge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline_s: float = Field(default=10.0, gt=0)
    """How long the core may take over one call, in seconds."""
    readiness_deadline_s: float = Field(default=1.0, gt=0)
    """How long the core may take to say that it serves, in seconds."""
    max_body_bytes: int = Field(default=65_536, gt=0)
    """The largest request body that is read."""
    max_in_progress: int = Field(default=512, ge=1)
    """How many requests may be in progress in this process; further ones are refused as UNAVAILABLE at once."""
    max_streams: int = Field(default=500, ge=1)
    """How many streams of events may be open in this process; further ones are refused as UNAVAILABLE."""
    max_streams_a_key: int = Field(default=20, ge=1)
    """How many of them one API key may have; further ones are refused as RATE_LIMITED."""
    poll_s: float = Field(default=5.0, gt=0, le=30)
    """How long a stream asks the core to wait for events at a time, in seconds; then the key is checked again."""
    heartbeat_s: float = Field(default=15.0, gt=0)
    """How long a stream may be silent before it writes a comment, in seconds."""
    write_timeout_s: float = Field(default=30.0, gt=0)
    """How long the reader of a stream may take nothing before it is closed, in seconds."""
    coalesce: bool = True
    """Whether sends to a core in another process gather in fewer calls."""
