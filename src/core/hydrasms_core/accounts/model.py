"""Accounts and API keys: what they are, and the bounds of what is asked of them."""

import enum
import re
from dataclasses import dataclass, replace

from hydrasms_base.keys import DISPLAY_LENGTH
from hydrasms_base.secret import Secret
from hydrasms_core.errors import InvalidArgument

MAX_NAME_CHARACTERS = 200
MAX_INITIAL_CREDITS = 10**12
DEFAULT_OVERLAP_MS = 24 * 3_600_000
MAX_OVERLAP_MS = 30 * 24 * 3_600_000

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX = re.compile(rf"[\x21-\x7e]{{0,{DISPLAY_LENGTH}}}", re.ASCII)


class Plan(enum.StrEnum):
    """What an account pays for."""

    FREE = "free"
    PREMIUM = "premium"


SHORTCODE_LIMITS = {Plan.FREE: 1, Plan.PREMIUM: 5}
"""How many shortcodes a plan covers."""


@dataclass(frozen=True, slots=True)
class Account:
    """A customer. Times are milliseconds since 1970 UTC."""

    id: str
    name: str
    plan: Plan
    sending_enabled: bool
    suspended: bool
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known about an API key. From `expires_at_ms` on it is refused; None: it has no end."""

    id: str
    account_id: str
    name: str
    prefix: str
    enabled: bool
    imported: bool
    created_at_ms: int
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key that was made elsewhere: its SHA-256 and its first characters, never the key itself."""

    digest: str
    prefix: str


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is asked of a new account, unchecked."""

    name: str
    plan: Plan = Plan.FREE
    sending_enabled: bool = True
    initial_credits: int = 0
    with_key: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What to change of an account, unchecked; None leaves a thing as it is."""

    name: str | None = None
    plan: Plan | None = None
    sending_enabled: bool | None = None
    suspended: bool | None = None

    def applied_to(self, account: Account) -> Account:
        """Return the account as the change leaves it, but for the time of the change."""
        return replace(
            account,
            name=account.name if self.name is None else self.name,
            plan=account.plan if self.plan is None else self.plan,
            sending_enabled=account.sending_enabled if self.sending_enabled is None else self.sending_enabled,
            suspended=account.suspended if self.suspended is None else self.suspended,
        )


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is asked of a new API key, unchecked; `imported` takes that one over and makes none."""

    account_id: str
    name: str = ""
    imported: ImportedKey | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that was created. `secret` is shown this once: None for an imported key and in a replay."""

    key: ApiKey
    secret: Secret | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class CreatedAccount:
    """An account that was created, with its first key where one was asked for and still is there."""

    account: Account
    key: ApiKey | None
    secret: Secret | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A successor, and the key that it takes over from."""

    issued: IssuedKey
    replaced: ApiKey


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """What decides whether a key is let in, and for whom it speaks."""

    account_id: str
    enabled: bool
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class AccountAccess:
    """What decides whether an account may send."""

    sending_enabled: bool
    suspended: bool


def is_digest(text: str) -> bool:
    """Tell whether a text has the form of a key's digest, so that a look-up makes sense at all."""
    return _DIGEST.fullmatch(text) is not None


def check_new_account(new: NewAccount) -> NewAccount:
    """Return a request for an account as it is; raises InvalidArgument."""
    check_account_name(new.name)
    if not 0 <= new.initial_credits <= MAX_INITIAL_CREDITS:
        raise InvalidArgument(
            f"initial_credits is 0 to {MAX_INITIAL_CREDITS:,}.",
            field="initial_credits",
        )
    return new


def check_account_name(name: str) -> str:
    """Return an account's name as it is; raises InvalidArgument."""
    if not name:
        raise InvalidArgument(f"name is required: 1 to {MAX_NAME_CHARACTERS} characters.", field="name")
    return _check_name(name)


def check_new_key(new: NewKey) -> NewKey:
    """Return a request for an API key as it is; raises InvalidArgument."""
    _check_name(new.name)
    if new.imported is None:
        return new
    if not is_digest(new.imported.digest):
        raise InvalidArgument(
            "imported.digest is the SHA-256 of the key: 64 lower-case hexadecimal digits.",
            field="imported.digest",
        )
    if _PREFIX.fullmatch(new.imported.prefix) is None:
        raise InvalidArgument(
            f"imported.prefix is the first characters of the key, at most {DISPLAY_LENGTH}, visible ASCII.",
            field="imported.prefix",
        )
    return new


def check_overlap(overlap_ms: int | None) -> int:
    """Return how long a replaced key still works, in milliseconds: None is a day; raises InvalidArgument."""
    if overlap_ms is None:
        return DEFAULT_OVERLAP_MS
    if not 0 <= overlap_ms <= MAX_OVERLAP_MS:
        raise InvalidArgument("overlap is 0 to 30 days.", field="overlap")
    return overlap_ms


def end_of_replaced(key: ApiKey, *, now_ms: int, overlap_ms: int) -> int:
    """Return when a key that is replaced now ends, in milliseconds since 1970; never later than it did before."""
    end_ms = now_ms + overlap_ms
    return end_ms if key.expires_at_ms is None else min(end_ms, key.expires_at_ms)


def _check_name(name: str) -> str:
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidArgument(
            f"name has {len(name)} characters; {MAX_NAME_CHARACTERS} are the most.", field="name"
        )
    # Neither every database nor every wire can hold these.
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidArgument("name holds a NUL character or half of a surrogate pair.", field="name")
    return name
