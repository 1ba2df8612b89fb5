"""Accounts for a benchmark: created over gRPC, each with plenty of credits and a key."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.servers import Hydrasms
from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms.accounts.v1 import account_service_pb2_grpc

CREDITS = 1_000_000_000
_AT_ONCE = 32
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Account:
    """An account that may send, and its key."""

    id: str
    key: str


def create_accounts(server: Hydrasms, count: int) -> list[Account]:
    """Create accounts on a running server."""
    return asyncio.run(_create(f"127.0.0.1:{server.grpc_port}", server.token, count))


def write_keys(accounts: Sequence[Account], path: Path) -> Path:
    """Write the keys of accounts into a file, one a line, and return its path."""
    path.write_text("".join(f"{account.key}\n" for account in accounts))
    return path


def write_ids(accounts: Sequence[Account], path: Path) -> Path:
    """Write the ids of accounts into a file, one a line, and return its path."""
    path.write_text("".join(f"{account.id}\n" for account in accounts))
    return path


async def _create(address: str, token: str, count: int) -> list[Account]:
    metadata = (("authorization", f"Bearer {token}"),)
    gate = asyncio.Semaphore(_AT_ONCE)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = account_service_pb2_grpc.AccountServiceStub(channel)

        async def one(number: int) -> Account:
            request = pb.CreateAccountRequest(
                name=f"bench {number}", initial_credits=CREDITS, create_api_key=True
            )
            async with gate:
                made = await stub.CreateAccount(request, metadata=metadata, timeout=_TIMEOUT_S)
            return Account(made.account.id, made.api_key_secret)

        return list(await asyncio.gather(*(one(number) for number in range(count))))
