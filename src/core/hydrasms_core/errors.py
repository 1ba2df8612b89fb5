"""What can go wrong, in the domain's words.

Every error that a caller is meant to see is a `DomainError`: a kind (what sort of failure), a reason (a name of
`hydrasms.errors.v1.ErrorReason`, stable for ever) and metadata. Nothing here knows gRPC or HTTP.
"""

import enum
from collections.abc import Mapping
from typing import ClassVar


class Kind(enum.Enum):
    """What sort of failure it is; the names are those of gRPC's status codes."""

    INVALID_ARGUMENT = enum.auto()
    DEADLINE_EXCEEDED = enum.auto()
    NOT_FOUND = enum.auto()
    ALREADY_EXISTS = enum.auto()
    PERMISSION_DENIED = enum.auto()
    RESOURCE_EXHAUSTED = enum.auto()
    FAILED_PRECONDITION = enum.auto()
    ABORTED = enum.auto()
    INTERNAL = enum.auto()
    UNAVAILABLE = enum.auto()
    UNAUTHENTICATED = enum.auto()


class DomainError(Exception):
    """An error that its caller is meant to see.

    `field` names the request's field at fault, `retry_after_s` says when trying again makes sense, and
    `metadata` holds what a program may want to read. No message holds a key, a number or a body.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})


class InvalidArgument(DomainError):
    """A field is out of its bounds."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class InvalidIdempotencyKey(InvalidArgument):
    """The idempotency key is empty, too long or not visible ASCII."""

    reason = "INVALID_IDEMPOTENCY_KEY"


class InvalidRecipient(InvalidArgument):
    """The recipient is no number that could receive a message."""

    reason = "INVALID_RECIPIENT"


class InvalidContent(InvalidArgument):
    """The content is empty, too long or not storable."""

    reason = "INVALID_CONTENT"


class InvalidPageToken(InvalidArgument):
    """The page token was not made by this list."""

    reason = "INVALID_PAGE_TOKEN"


class InsufficientCredits(DomainError):
    """The balance is lower than the cost."""

    kind = Kind.FAILED_PRECONDITION
    reason = "INSUFFICIENT_CREDITS"

    def __init__(self, balance: int, cost: int) -> None:
        super().__init__(
            f"The message costs {cost} credit{'s' if cost != 1 else ''} and the balance is {balance}.",
            metadata={"balance": str(balance), "credit_cost": str(cost)},
        )
        self.balance = balance
        self.cost = cost


class UnknownApiKey(DomainError):
    """No account has this API key."""

    kind = Kind.UNAUTHENTICATED
    reason = "UNKNOWN_API_KEY"


class ApiKeyDisabled(DomainError):
    """The API key is disabled or past its end."""

    kind = Kind.PERMISSION_DENIED
    reason = "API_KEY_DISABLED"


class InvalidServiceToken(DomainError):
    """The service token is missing, wrong or revoked."""

    kind = Kind.UNAUTHENTICATED
    reason = "INVALID_SERVICE_TOKEN"


class PermissionDenied(DomainError):
    """The caller is known but may not call this."""

    kind = Kind.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class SendingNotEnabled(DomainError):
    """The account may not send messages yet."""

    kind = Kind.PERMISSION_DENIED
    reason = "SENDING_NOT_ENABLED"


class AccountSuspended(DomainError):
    """The account is suspended."""

    kind = Kind.PERMISSION_DENIED
    reason = "ACCOUNT_SUSPENDED"


class NotFound(DomainError):
    """What the request names does not exist, or belongs to somebody else."""

    kind = Kind.NOT_FOUND
    reason = "NOT_FOUND"

    def __init__(self, resource: str) -> None:
        super().__init__(f"There is no such {resource}.", metadata={"resource": resource})


class AlreadyExists(DomainError):
    """What the request would create is there already."""

    kind = Kind.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class NotCancellable(DomainError):
    """The message has left the queue."""

    kind = Kind.FAILED_PRECONDITION
    reason = "NOT_CANCELLABLE"


class RecipientOptedOut(DomainError):
    """The recipient has asked to receive no more messages of the account."""

    kind = Kind.PERMISSION_DENIED
    reason = "RECIPIENT_OPTED_OUT"

    def __init__(self) -> None:
        super().__init__(
            "The recipient has asked to receive no more messages from you. Texting START ends that.",
            field="recipient",
        )


class ShortcodeReserved(InvalidArgument):
    """The word means something to every phone."""

    reason = "SHORTCODE_RESERVED"


class ShortcodeLimitReached(DomainError):
    """The account's plan holds no more shortcodes."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SHORTCODE_LIMIT_REACHED"


class InvalidWebhookUrl(InvalidArgument):
    """The URL is none that may be posted to."""

    reason = "INVALID_WEBHOOK_URL"


class AlreadyDelivered(DomainError):
    """The delivery was answered 2xx."""

    kind = Kind.FAILED_PRECONDITION
    reason = "ALREADY_DELIVERED"


class IdempotencyMismatch(DomainError):
    """The idempotency key was used before, with another request."""

    kind = Kind.ALREADY_EXISTS
    reason = "IDEMPOTENCY_MISMATCH"

    def __init__(self) -> None:
        super().__init__(
            "This idempotency key was used before with another request. Use a new key for a new request.",
            field="idempotency_key",
        )


class IdempotencyInProgress(DomainError):
    """The request that first used the idempotency key is still being worked on by another process."""

    kind = Kind.ABORTED
    reason = "IDEMPOTENCY_IN_PROGRESS"

    def __init__(self) -> None:
        super().__init__(
            "Another request of this account, perhaps with the same idempotency key, is still being worked on. "
            "Try again in a moment, with the same key.",
            field="idempotency_key",
            retry_after_s=1,
        )


class Overloaded(DomainError):
    """Too much is waiting already."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("Too many requests are waiting. Try again in a moment.", retry_after_s=1)


class StoreUnavailable(DomainError):
    """The database cannot be used for now: it is locked, full or gone."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"

    def __init__(self, message: str = "The store cannot be used for now. Try again in a moment.") -> None:
        super().__init__(message, retry_after_s=1)


class StoreBusy(StoreUnavailable):
    """Another process has held what the transaction needs for too long."""


class CommitUnknown(StoreUnavailable):
    """The database went away while it committed, and nobody could find out whether it did."""

    def __init__(self) -> None:
        super().__init__(
            "The store went away before it said whether this was done. Repeat it with the same idempotency key, "
            "or look before you repeat it."
        )


class DeadlinePassed(DomainError):
    """The answer did not come within the deadline."""

    kind = Kind.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "The answer took too long.") -> None:
        super().__init__(message)


class InternalError(DomainError):
    """A fault of ours; the log has the detail, the caller has the request id."""

    def __init__(self) -> None:
        super().__init__("Internal error. The log has more under this call's request id.")
