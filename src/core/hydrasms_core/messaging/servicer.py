"""The services of hydrasms.messaging.v1."""

from hydrasms.messaging.v1 import forwarding_service_pb2 as forwarding_pb
from hydrasms.messaging.v1 import forwarding_service_pb2_grpc, messaging_service_pb2_grpc
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms_core.caller import caller
from hydrasms_core.events import wire as events_wire
from hydrasms_core.events.service import Events
from hydrasms_core.inbound.service import Inbound
from hydrasms_core.messaging import wire
from hydrasms_core.messaging.forwarding import Forwarding
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.rpc.interceptors import Context


class MessagingServicer(messaging_service_pb2_grpc.MessagingServiceServicer):
    """Unpacks requests, calls the service and packs answers."""

    def __init__(self, messaging: Messaging, inbound: Inbound, events: Events) -> None:
        self._messaging = messaging
        self._inbound = inbound
        self._events = events

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        """Accept one message."""
        who = caller()
        account_id = who.account_for(request.account_id)
        return wire.sent(await self._messaging.send(account_id, wire.draft(request), actor=who.actor))

    async def BatchSendMessages(
        self, request: pb.BatchSendMessagesRequest, context: Context
    ) -> pb.BatchSendMessagesResponse:
        """Accept many messages, each on its own."""
        who = caller()
        drafts = [wire.draft(item) for item in request.items]
        account_id = who.account_for(request.account_id)
        return wire.batch(await self._messaging.send_batch(account_id, drafts, actor=who.actor))

    async def EstimateMessage(
        self, request: pb.EstimateMessageRequest, context: Context
    ) -> pb.EstimateMessageResponse:
        """Say what a text costs and how it travels."""
        account_id = caller().account_for(request.account_id)
        return wire.estimate(await self._messaging.estimate(account_id, request.content))

    async def GetMessage(self, request: pb.GetMessageRequest, context: Context) -> pb.GetMessageResponse:
        """Return one message."""
        account_id = caller().account_for(request.account_id)
        found = await self._messaging.get(account_id, request.message_id)
        return pb.GetMessageResponse(message=wire.message(found))

    async def ListMessages(
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        """Return one page of messages."""
        account_id = caller().account_for(request.account_id)
        return wire.messages(
            await self._messaging.list_sent(account_id, request.page_size, request.page_token)
        )

    async def CancelMessage(
        self, request: pb.CancelMessageRequest, context: Context
    ) -> pb.CancelMessageResponse:
        """Take a queued message back."""
        who = caller()
        account_id = who.account_for(request.account_id)
        cancelled = await self._messaging.cancel(account_id, request.message_id, actor=who.actor)
        return pb.CancelMessageResponse(message=wire.message(cancelled))

    async def ListInboundMessages(
        self, request: pb.ListInboundMessagesRequest, context: Context
    ) -> pb.ListInboundMessagesResponse:
        """Return one page of inbound messages."""
        account_id = caller().account_for(request.account_id)
        return wire.inbound_messages(
            await self._messaging.list_inbound(account_id, request.page_size, request.page_token)
        )

    async def ReceiveInbound(
        self, request: pb.ReceiveInboundRequest, context: Context
    ) -> pb.ReceiveInboundResponse:
        """Take in a text that a phone sent."""
        return wire.received(await self._inbound.receive(wire.inbound_text(request)))

    async def ListUnownedInboundMessages(
        self, request: pb.ListUnownedInboundMessagesRequest, context: Context
    ) -> pb.ListUnownedInboundMessagesResponse:
        """Return one page of the texts that are nobody's."""
        return wire.unowned_messages(await self._inbound.list_unowned(request.page_size, request.page_token))

    async def AssignInboundMessage(
        self, request: pb.AssignInboundMessageRequest, context: Context
    ) -> pb.AssignInboundMessageResponse:
        """Give a text that is nobody's to an account."""
        assigned = await self._inbound.assign(request.inbound_message_id, request.account_id)
        return pb.AssignInboundMessageResponse(message=wire.inbound_message(assigned))

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        """Return what happened after a place, or wait for it."""
        account_id = caller().account_or_all(request.account_id)
        query, within_s = events_wire.query(request), context.time_remaining()
        return events_wire.listed(await self._events.list_events(account_id, query, within_s=within_s))


class ForwardingServicer(forwarding_service_pb2_grpc.ForwardingServiceServicer):
    """Unpacks what edges pass on, calls the use case and packs answers."""

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    async def ForwardSends(
        self, request: forwarding_pb.ForwardSendsRequest, context: Context
    ) -> forwarding_pb.ForwardSendsResponse:
        """Accept the sends of many callers, each on its own."""
        return wire.forwarding(await self._forwarding.send_each(wire.forwarded(request)))
