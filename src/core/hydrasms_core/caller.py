"""Who is calling, for the length of one call."""

from contextvars import ContextVar
from dataclasses import dataclass

from hydrasms_core.errors import InvalidArgument, NotFound


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: an account by its API key, or an internal service (account_id None)."""

    account_id: str | None

    @property
    def actor(self) -> str:
        """What the ledger records as the cause of a transfer."""
        return "service" if self.account_id is None else "account"

    def account_for(self, named: str) -> str:
        """Return the account that this call is for.

        An account acts for itself; a service names the account. Raises NotFound where an account names
        another, as for an account that does not exist, and InvalidArgument where a service names none.
        """
        if self.account_id is None:
            if not named:
                raise InvalidArgument("Say which account the call is for.", field="account_id")
            return named
        if named and named != self.account_id:
            raise NotFound("account")
        return self.account_id

    def account_if_any(self, named: str) -> str | None:
        """Return the account that this call is for, as `account_for`; None where a service names none."""
        return self.account_for(named) if named or self.account_id is not None else None


_current: ContextVar[Caller] = ContextVar("hydrasms_caller")


def caller() -> Caller:
    """Return who makes the current call; a LookupError outside of one is a bug."""
    return _current.get()


class calling:  # noqa: N801 - a context manager, named as it reads
    """Make `who` the caller of all that runs inside."""

    __slots__ = ("_token", "_who")

    def __init__(self, who: Caller) -> None:
        self._who = who

    def __enter__(self) -> None:
        self._token = _current.set(self._who)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
