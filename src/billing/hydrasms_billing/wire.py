"""Transactions and verification reports as protobuf."""

from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms_billing.model import (
    Discrepancy,
    DiscrepancyKind,
    Granted,
    Transaction,
    TransactionKind,
    VerifyReport,
)
from hydrasms_core.paging import Page
from hydrasms_core.rpc.wire import timestamp

_KINDS = {kind: pb.TransactionKind.Value(f"TRANSACTION_KIND_{kind.name}") for kind in TransactionKind}
_DISCREPANCY_KINDS = {
    kind: pb.DiscrepancyKind.Value(f"DISCREPANCY_KIND_{kind.name}") for kind in DiscrepancyKind
}


def idempotency_key(request: pb.GrantCreditsRequest) -> str | None:
    """Return the key of a grant, or None where none was sent."""
    return request.idempotency_key if request.HasField("idempotency_key") else None


def transaction(value: Transaction) -> pb.Transaction:
    """Return a transaction as callers see it."""
    return pb.Transaction(
        id=value.id,
        account_id=value.account_id,
        kind=_KINDS[value.kind],
        amount=value.amount,
        message_id=value.message_id,
        payment_id=value.payment_id,
        actor=value.actor,
        reason=value.reason,
        created_at=timestamp(value.created_at_ms),
    )


def transactions(page: Page[Transaction]) -> pb.ListTransactionsResponse:
    """Return a page of transactions."""
    return pb.ListTransactionsResponse(
        transactions=[transaction(row) for row in page.rows], next_page_token=page.next_token
    )


def granted(value: Granted) -> pb.GrantCreditsResponse:
    """Return the answer to a grant."""
    return pb.GrantCreditsResponse(
        transaction=transaction(value.transaction),
        balance=value.balance,
        idempotent_replayed=value.replayed,
    )


def verify_response(report: VerifyReport) -> pb.VerifyLedgerResponse:
    """Return what a verification found."""
    return pb.VerifyLedgerResponse(
        ok=report.ok,
        discrepancies=[_discrepancy(each) for each in report.discrepancies],
        accounts=report.accounts,
        transfers=report.transfers,
        messages=report.messages,
    )


def _discrepancy(value: Discrepancy) -> pb.Discrepancy:
    return pb.Discrepancy(
        kind=_DISCREPANCY_KINDS[value.kind],
        account_id=value.account_id,
        subject=value.subject,
        detail=value.detail,
    )
