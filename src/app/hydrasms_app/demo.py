"""The demo account that a first start creates, so that a newcomer can send at once."""

from pathlib import Path

import grpc

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms.accounts.v1 import account_service_pb2_grpc
from hydrasms_app.problems import Problem
from hydrasms_base.keys import digest_key, display_prefix, generate_key
from hydrasms_base.secret import Secret, write_secret

CREDITS = 1_000
_TIMEOUT_S = 10.0


async def demo_key(channel: grpc.aio.Channel, token: Secret, path: Path) -> str | None:
    """Return the demo account's key; on a server without accounts, make the account first. Raises Problem.

    The key is written down before the account exists and creating is idempotent, so that a crash in between
    leaves nothing that the next start cannot finish. None where accounts exist and no demo key was ever made.
    """
    try:
        return await _found_or_made(channel, token, path)
    except grpc.aio.AioRpcError as error:
        raise Problem(f"the demo account cannot be looked up or made: {error.details()}") from None


async def _found_or_made(channel: grpc.aio.Channel, token: Secret, path: Path) -> str | None:
    accounts = account_service_pb2_grpc.AccountServiceStub(channel)
    metadata = (("authorization", f"Bearer {token.reveal()}"),)
    if not path.exists():  # noqa: ASYNC240 - once, before anybody is served
        listed = await accounts.ListAccounts(
            pb.ListAccountsRequest(page_size=1), metadata=metadata, timeout=_TIMEOUT_S
        )
        if listed.accounts:
            return None
        write_secret(path, generate_key())
    key = path.read_text().strip()  # noqa: ASYNC240 - as above
    if not await _is_known(accounts, token, key):
        created = await accounts.CreateAccount(
            pb.CreateAccountRequest(
                name="demo", initial_credits=CREDITS, idempotency_key=f"demo-{digest_key(key)}"
            ),
            metadata=metadata,
            timeout=_TIMEOUT_S,
        )
        await accounts.CreateApiKey(
            pb.CreateApiKeyRequest(
                account_id=created.account.id,
                name="demo",
                imported=pb.ImportedKey(digest=digest_key(key), prefix=display_prefix(key)),
                idempotency_key=f"demo-{digest_key(key)}",
            ),
            metadata=metadata,
            timeout=_TIMEOUT_S,
        )
    return key


async def _is_known(
    accounts: "account_service_pb2_grpc.AccountServiceAsyncStub", token: Secret, key: str
) -> bool:
    metadata = (
        ("authorization", f"Bearer {token.reveal()}"),
        ("hydrasms-key-digest", digest_key(key)),
    )
    try:
        await accounts.GetAccount(pb.GetAccountRequest(), metadata=metadata, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        # Disabled is known as well: an operator has put the demo account out of service on purpose.
        return error.code() is grpc.StatusCode.PERMISSION_DENIED
    return True
