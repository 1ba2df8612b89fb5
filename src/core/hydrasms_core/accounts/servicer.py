"""hydrasms.accounts.v1.AccountService."""

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms.accounts.v1 import account_service_pb2_grpc
from hydrasms_core.accounts import wire
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.caller import caller
from hydrasms_core.rpc.interceptors import Context


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """Unpacks requests, calls the service and packs answers."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: Context
    ) -> pb.CreateAccountResponse:
        """Create an account."""
        created = await self._accounts.create(wire.new_account(request), actor=caller().actor)
        return wire.created_account(created)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        """Return one account; an account only itself."""
        found = await self._accounts.get(caller().account_for(request.account_id))
        return pb.GetAccountResponse(account=wire.account(found))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context
    ) -> pb.ListAccountsResponse:
        """Return one page of accounts."""
        return wire.accounts(await self._accounts.list_accounts(request.page_size, request.page_token))

    async def UpdateAccount(
        self, request: pb.UpdateAccountRequest, context: Context
    ) -> pb.UpdateAccountResponse:
        """Change an account."""
        updated = await self._accounts.update(request.account_id, wire.account_change(request))
        return pb.UpdateAccountResponse(account=wire.account(updated))

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        """Create an API key or take one over."""
        return wire.issued_key(await self._accounts.create_key(wire.new_key(request)))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """Return one page of an account's keys."""
        return wire.api_keys(
            await self._accounts.list_keys(request.account_id, request.page_size, request.page_token)
        )

    async def DisableApiKey(
        self, request: pb.DisableApiKeyRequest, context: Context
    ) -> pb.DisableApiKeyResponse:
        """Disable a key."""
        key = await self._accounts.set_key_enabled(request.api_key_id, enabled=False)
        return pb.DisableApiKeyResponse(api_key=wire.api_key(key))

    async def EnableApiKey(
        self, request: pb.EnableApiKeyRequest, context: Context
    ) -> pb.EnableApiKeyResponse:
        """Enable a key again."""
        key = await self._accounts.set_key_enabled(request.api_key_id, enabled=True)
        return pb.EnableApiKeyResponse(api_key=wire.api_key(key))

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: Context
    ) -> pb.RotateApiKeyResponse:
        """Create a successor of a key."""
        rotated = await self._accounts.rotate_key(
            request.api_key_id,
            overlap_ms=wire.overlap_ms(request),
            idempotency_key=wire.rotation_key(request),
        )
        return wire.rotated_key(rotated)

    async def DeleteApiKey(
        self, request: pb.DeleteApiKeyRequest, context: Context
    ) -> pb.DeleteApiKeyResponse:
        """Forget a key."""
        await self._accounts.delete_key(request.api_key_id)
        return pb.DeleteApiKeyResponse()
