"""Accounts and API keys as protobuf."""

from google.protobuf.duration_pb2 import Duration

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms_core.accounts.model import (
    Account,
    AccountChange,
    ApiKey,
    CreatedAccount,
    ImportedKey,
    IssuedKey,
    NewAccount,
    NewKey,
    Plan,
    RotatedKey,
)
from hydrasms_core.errors import InvalidArgument
from hydrasms_core.paging import Page
from hydrasms_core.rpc.wire import timestamp

_TO_WIRE = {plan: pb.Plan.Value(f"PLAN_{plan.name}") for plan in Plan}
_FROM_WIRE: dict[int, Plan | None] = {pb.PLAN_UNSPECIFIED: None} | {
    number: plan for plan, number in _TO_WIRE.items()
}


def new_account(request: pb.CreateAccountRequest) -> NewAccount:
    """Return what is asked of a new account; raises InvalidArgument for a plan that there is not."""
    return NewAccount(
        name=request.name,
        plan=_plan(request.plan) or Plan.FREE,
        sending_enabled=request.sending_enabled if request.HasField("sending_enabled") else True,
        initial_credits=request.initial_credits,
        with_key=request.create_api_key,
        idempotency_key=request.idempotency_key if request.HasField("idempotency_key") else None,
    )


def account_change(request: pb.UpdateAccountRequest) -> AccountChange:
    """Return what to change of an account; raises InvalidArgument for a plan that there is not."""
    return AccountChange(
        name=request.name if request.HasField("name") else None,
        plan=_plan(request.plan),
        sending_enabled=request.sending_enabled if request.HasField("sending_enabled") else None,
        suspended=request.suspended if request.HasField("suspended") else None,
    )


def new_key(request: pb.CreateApiKeyRequest) -> NewKey:
    """Return what is asked of a new API key."""
    imported = ImportedKey(request.imported.digest, request.imported.prefix)
    return NewKey(
        account_id=request.account_id,
        name=request.name,
        imported=imported if request.HasField("imported") else None,
        idempotency_key=request.idempotency_key if request.HasField("idempotency_key") else None,
    )


def overlap_ms(request: pb.RotateApiKeyRequest) -> int | None:
    """Return how long the old key shall still work, in milliseconds rounded down; None where it is not said."""
    return _millis(request.overlap) if request.HasField("overlap") else None


def rotation_key(request: pb.RotateApiKeyRequest) -> str | None:
    """Return the idempotency key of a rotation."""
    return request.idempotency_key if request.HasField("idempotency_key") else None


def account(value: Account) -> pb.Account:
    """Return an account as callers see it."""
    return pb.Account(
        id=value.id,
        name=value.name,
        plan=_TO_WIRE[value.plan],
        sending_enabled=value.sending_enabled,
        suspended=value.suspended,
        created_at=timestamp(value.created_at_ms),
        updated_at=timestamp(value.updated_at_ms),
    )


def api_key(value: ApiKey) -> pb.ApiKey:
    """Return what is known about a key as callers see it."""
    return pb.ApiKey(
        id=value.id,
        account_id=value.account_id,
        name=value.name,
        prefix=value.prefix,
        enabled=value.enabled,
        imported=value.imported,
        created_at=timestamp(value.created_at_ms),
        expires_at=None if value.expires_at_ms is None else timestamp(value.expires_at_ms),
    )


def created_account(value: CreatedAccount) -> pb.CreateAccountResponse:
    """Return the answer to a creation; it holds the key itself where there is one to show."""
    return pb.CreateAccountResponse(
        account=account(value.account),
        api_key=None if value.key is None else api_key(value.key),
        api_key_secret="" if value.secret is None else value.secret.reveal(),
        idempotent_replayed=value.replayed,
    )


def accounts(page: Page[Account]) -> pb.ListAccountsResponse:
    """Return a page of accounts."""
    return pb.ListAccountsResponse(
        accounts=[account(row) for row in page.rows], next_page_token=page.next_token
    )


def issued_key(value: IssuedKey) -> pb.CreateApiKeyResponse:
    """Return the answer to a key's creation; it holds the key itself where there is one to show."""
    return pb.CreateApiKeyResponse(
        api_key=api_key(value.key),
        secret="" if value.secret is None else value.secret.reveal(),
        idempotent_replayed=value.replayed,
    )


def rotated_key(value: RotatedKey) -> pb.RotateApiKeyResponse:
    """Return the answer to a rotation; it holds the successor itself where there is one to show."""
    issued = value.issued
    return pb.RotateApiKeyResponse(
        api_key=api_key(issued.key),
        secret="" if issued.secret is None else issued.secret.reveal(),
        replaced=api_key(value.replaced),
        idempotent_replayed=issued.replayed,
    )


def api_keys(page: Page[ApiKey]) -> pb.ListApiKeysResponse:
    """Return a page of keys."""
    return pb.ListApiKeysResponse(
        api_keys=[api_key(row) for row in page.rows], next_page_token=page.next_token
    )


def _plan(number: int) -> Plan | None:
    # Enums are open: a caller may send a number that only a later version knows.
    if number not in _FROM_WIRE:
        raise InvalidArgument("plan is FREE or PREMIUM.", field="plan")
    return _FROM_WIRE[number]


def _millis(span: Duration) -> int:
    return (span.seconds * 1_000_000_000 + span.nanos) // 1_000_000
