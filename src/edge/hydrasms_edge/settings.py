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
    coalesce: bool = True
    """Whether sends to a core in another process gather in fewer calls."""
