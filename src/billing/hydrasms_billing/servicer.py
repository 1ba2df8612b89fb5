"""hydrasms.billing.v1.BillingService."""

from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms.billing.v1 import billing_service_pb2_grpc
from hydrasms_billing import wire
from hydrasms_billing.service import Billing
from hydrasms_core.caller import caller
from hydrasms_core.rpc.interceptors import Context


class BillingServicer(billing_service_pb2_grpc.BillingServiceServicer):
    """Unpacks requests, calls the service and packs answers."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Context) -> pb.GetBalanceResponse:
        """Return an account's balance."""
        account_id = caller().account_for(request.account_id)
        return pb.GetBalanceResponse(account_id=account_id, balance=await self._billing.balance(account_id))

    async def ListTransactions(
        self, request: pb.ListTransactionsRequest, context: Context
    ) -> pb.ListTransactionsResponse:
        """Return one page of transactions."""
        account_id = caller().account_for(request.account_id)
        return wire.transactions(
            await self._billing.transactions(account_id, request.page_size, request.page_token)
        )

    async def GrantCredits(
        self, request: pb.GrantCreditsRequest, context: Context
    ) -> pb.GrantCreditsResponse:
        """Give an account credits."""
        who = caller()
        account_id = who.account_for(request.account_id)
        key = wire.idempotency_key(request)
        return wire.granted(
            await self._billing.grant(
                account_id, request.amount, request.reason, actor=who.actor, idempotency_key=key
            )
        )

    async def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, context: Context
    ) -> pb.VerifyLedgerResponse:
        """Recompute the ledger."""
        return wire.verify_response(await self._billing.verify())
