"""What an operator may set of the core."""

from pydantic import BaseModel, ConfigDict, Field


class MessagingSettings(BaseModel):
    """How messages are accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sent_from: str = Field(default="+2899682626", min_length=1, max_length=20)
    """What recipients see as the sender; it need not parse as a number."""

    validity_s: int = Field(default=48 * 3600, ge=60, le=7 * 24 * 3600)
    """How long a message may wait for a carrier, in seconds; then it expires and is refunded."""

    max_batch: int = Field(default=256, ge=1, le=10_000)
    """How many sends one transaction takes at most."""

    max_waiting: int = Field(default=10_000, ge=1)
    """How many sends may wait for the store; past it they are refused as UNAVAILABLE at once."""
