"""hydrasms.messaging.v1.ShortcodeService."""

from hydrasms.messaging.v1 import shortcode_service_pb2 as pb
from hydrasms.messaging.v1 import shortcode_service_pb2_grpc
from hydrasms_core.caller import caller
from hydrasms_core.rpc.interceptors import Context
from hydrasms_core.shortcodes import wire
from hydrasms_core.shortcodes.service import Shortcodes


class ShortcodeServicer(shortcode_service_pb2_grpc.ShortcodeServiceServicer):
    """Unpacks requests, calls the service and packs answers."""

    def __init__(self, shortcodes: Shortcodes) -> None:
        self._shortcodes = shortcodes

    async def CreateShortcode(
        self, request: pb.CreateShortcodeRequest, context: Context
    ) -> pb.CreateShortcodeResponse:
        """Claim a shortcode."""
        account_id = caller().account_for(request.account_id)
        return wire.created(await self._shortcodes.create(wire.new_shortcode(request, account_id)))

    async def GetShortcode(
        self, request: pb.GetShortcodeRequest, context: Context
    ) -> pb.GetShortcodeResponse:
        """Return one shortcode."""
        account_id = caller().account_for(request.account_id)
        found = await self._shortcodes.get(account_id, request.shortcode_id)
        return pb.GetShortcodeResponse(shortcode=wire.shortcode(found))

    async def UpdateShortcode(
        self, request: pb.UpdateShortcodeRequest, context: Context
    ) -> pb.UpdateShortcodeResponse:
        """Change a shortcode's webhook."""
        account_id = caller().account_for(request.account_id)
        change = wire.shortcode_change(request)
        return wire.updated(await self._shortcodes.update(account_id, request.shortcode_id, change))

    async def DeleteShortcode(
        self, request: pb.DeleteShortcodeRequest, context: Context
    ) -> pb.DeleteShortcodeResponse:
        """Release a shortcode."""
        account_id = caller().account_for(request.account_id)
        await self._shortcodes.delete(account_id, request.shortcode_id)
        return pb.DeleteShortcodeResponse()

    async def ListShortcodes(
        self, request: pb.ListShortcodesRequest, context: Context
    ) -> pb.ListShortcodesResponse:
        """Return one page of shortcodes."""
        account_id = caller().account_for(request.account_id)
        return wire.shortcodes(
            await self._shortcodes.list_all(account_id, request.page_size, request.page_token)
        )

    async def WhoGets(self, request: pb.WhoGetsRequest, context: Context) -> pb.WhoGetsResponse:
        """Say who would receive a text."""
        return wire.routing(await self._shortcodes.who_gets(request.text))
