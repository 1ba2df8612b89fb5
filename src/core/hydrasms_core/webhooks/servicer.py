"""hydrasms.webhooks.v1.WebhookService."""

from hydrasms.webhooks.v1 import webhook_service_pb2 as pb
from hydrasms.webhooks.v1 import webhook_service_pb2_grpc
from hydrasms_base.clock import Clock
from hydrasms_core.caller import caller
from hydrasms_core.rpc.interceptors import Context
from hydrasms_core.webhooks import wire
from hydrasms_core.webhooks.service import Webhooks


class WebhookServicer(webhook_service_pb2_grpc.WebhookServiceServicer):
    """Unpacks requests, calls the service and packs answers."""

    def __init__(self, webhooks: Webhooks, clock: Clock) -> None:
        self._webhooks = webhooks
        self._clock = clock

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: Context
    ) -> pb.ListDeliveriesResponse:
        """Return one page of an account's deliveries."""
        page = await self._webhooks.list_deliveries(
            caller().account_for(request.account_id),
            request.page_size,
            request.page_token,
            status=wire.status_wanted(request),
            endpoint_id=request.endpoint_id,
        )
        return wire.deliveries(page)

    async def Redeliver(self, request: pb.RedeliverRequest, context: Context) -> pb.RedeliverResponse:
        """Try a delivery again at once."""
        owner = caller().account_or_all(request.account_id)
        again = await self._webhooks.redeliver(owner, request.delivery_id)
        return pb.RedeliverResponse(delivery=wire.delivery(again))

    async def RedeliverDead(
        self, request: pb.RedeliverDeadRequest, context: Context
    ) -> pb.RedeliverDeadResponse:
        """Try deliveries again that were given up."""
        account_id = caller().account_for(request.account_id)
        return wire.redelivered(await self._webhooks.redeliver_dead(account_id, request.endpoint_id))

    async def SendTestEvent(
        self, request: pb.SendTestEventRequest, context: Context
    ) -> pb.SendTestEventResponse:
        """Queue a test."""
        account_id = caller().account_for(request.account_id)
        queued = await self._webhooks.send_test(account_id, request.endpoint_id)
        return pb.SendTestEventResponse(delivery=wire.delivery(queued))

    async def RotateSecret(
        self, request: pb.RotateSecretRequest, context: Context
    ) -> pb.RotateSecretResponse:
        """Make a new signing secret."""
        rotated = await self._webhooks.rotate_secret(
            caller().account_for(request.account_id),
            request.endpoint_id,
            overlap_ms=wire.overlap_ms(request),
        )
        return wire.rotated(rotated, now_ms=self._clock.now_ms())

    async def GetEndpoint(self, request: pb.GetEndpointRequest, context: Context) -> pb.GetEndpointResponse:
        """Return one endpoint."""
        account_id = caller().account_for(request.account_id)
        found = await self._webhooks.get_endpoint(account_id, request.endpoint_id)
        return pb.GetEndpointResponse(endpoint=wire.endpoint(found, now_ms=self._clock.now_ms()))

    async def SetAccountWebhook(
        self, request: pb.SetAccountWebhookRequest, context: Context
    ) -> pb.SetAccountWebhookResponse:
        """Set or take away the account's own webhook."""
        own = await self._webhooks.set_own(caller().account_for(request.account_id), request.url)
        return wire.own_webhook(own, now_ms=self._clock.now_ms())
