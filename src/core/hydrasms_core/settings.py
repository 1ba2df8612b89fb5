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


class InboundSettings(BaseModel):
    """How texts from phones are taken in and answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sent_from: str = Field(default="+2899682626", min_length=1, max_length=20)
    """What recipients see as the sender of automatic replies; a text from there is not answered."""

    replies_per_hour: int = Field(default=3, ge=0, le=1_000)
    """How many automatic replies one number gets within an hour at most."""

    max_batch: int = Field(default=256, ge=1, le=10_000)
    """How many texts one transaction takes at most."""

    max_waiting: int = Field(default=10_000, ge=1)
    """How many texts may wait for the store; past it they are refused as UNAVAILABLE at once."""


class ReplySettings(BaseModel):
    """How automatic replies are handed to carriers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sent_from: str = Field(default="+2899682626", min_length=1, max_length=20)
    """What recipients see as the sender."""

    validity_s: int = Field(default=3600, ge=60, le=48 * 3600)
    """How long a reply may wait for a carrier, in seconds; then nobody expects it any more."""

    max_batch: int = Field(default=100, ge=1, le=10_000)
    """How many replies one claim takes at most."""

    lease_s: float = Field(default=30.0, gt=0)
    """How long a claim holds, in seconds; then its worker counts as dead."""

    pace_s: float = Field(default=0.1, ge=0)
    """The least time between two looks that find nothing, in seconds."""

    idle_s: float = Field(default=5.0, gt=0)
    """The longest time between two looks at what is due, in seconds, where nobody calls."""


class DeliverySettings(BaseModel):
    """How messages are handed to carriers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch: int = Field(default=500, ge=1, le=10_000)
    """How many messages one claim takes at most."""

    max_in_flight: int = Field(default=2, ge=1, le=100)
    """How many claims may be with carriers at once."""

    lease_s: float = Field(default=30.0, gt=0)
    """How long a claim holds without being renewed, in seconds; then its worker counts as dead."""

    receipt_timeout_s: float = Field(default=72 * 3600.0, gt=0)
    """How long a carrier's receipt is waited for, in seconds."""

    pace_s: float = Field(default=0.1, ge=0)
    """The least time between two claims where the first took all that was due, in seconds. A message may wait so
    long; in return many share each transaction."""

    idle_s: float = Field(default=5.0, gt=1.0)
    """The longest time between two looks at the outbox, in seconds, where nobody calls."""


class WebhookSettings(BaseModel):
    """How pushes are handed to receivers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_in_flight: int = Field(default=200, ge=1, le=10_000)
    """How many attempts of this process may be under way at once; as many again may be claimed, to be begun next."""

    max_per_receiver: int = Field(default=4, ge=1, le=200)
    """How many of them to one endpoint; one where its last attempt failed."""

    max_failing: int = Field(default=50, ge=1)
    """How many of them to endpoints whose last attempt failed, all together."""

    lease_s: float = Field(default=60.0, gt=0)
    """How long a claim holds without being renewed, in seconds; then its worker counts as dead. Longer than an
    attempt takes."""

    pace_s: float = Field(default=0.02, ge=0)
    """The least time between two looks at the queue, in seconds; in return many pushes share each transaction."""

    idle_s: float = Field(default=5.0, gt=1.0)
    """The longest time between two looks at the queue, in seconds, where nobody calls."""
