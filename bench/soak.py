"""`python -m bench.soak`: a steady load for hours, with an eye on memory, and at the end all sums held together."""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench import report, servers
from bench.accounts import CREDITS, Account, create_accounts
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import slope
from bench.servers import Hydrasms
from bench.soak_load import Load, Totals
from hydrasms.billing.v1 import billing_service_pb2 as pb
from hydrasms.billing.v1 import billing_service_pb2_grpc

_LATEST = Path(__file__).parents[1] / "build" / "bench" / "soak.json"
_SAMPLES = 2_000
_SHORTEST_STEP_S = 1.0
_SAID_EVERY_S = 600.0
_PAGE = 1_000
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """Two sums that must be equal, or a sum that must lie between two."""

    name: str
    expected: int
    found: int
    most: int | None = None

    @property
    def holds(self) -> bool:
        """True where nothing is wrong."""
        return self.expected <= self.found <= (self.expected if self.most is None else self.most)


@dataclass(frozen=True, slots=True)
class Books:
    """What the server's ledger says of some accounts."""

    spends: int
    spent: int
    refunded: int
    missing: int
    """Credits that their balances lack of what they were given."""
    odd: int
    """Accounts whose spends are not the credits that were answered for them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; returns 1 where a sum is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0, help="how long (8)")
    parser.add_argument("--rate", type=float, default=200.0, help="sends a second (200; about 1 GB an hour)")
    parser.add_argument("--connections", type=int, default=16, help="connections they come over (16)")
    parser.add_argument("--accounts", type=int, default=100, help="accounts they come from (100)")
    options = parser.parse_args(arguments)
    if min(options.hours, options.rate, options.connections, options.accounts) <= 0:
        parser.error("every number must be greater than 0")
    signal.signal(signal.SIGTERM, servers.leave)
    try:
        with servers.workspace() as folder, servers.hydrasms(folder, "soak") as serve:
            return _soak(serve, options, folder)
    except servers.ServerFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _soak(serve: Hydrasms, options: argparse.Namespace, folder: Path) -> int:
    idle_mb = serve.rss_mb()
    accounts = create_accounts(serve, options.accounts)
    points, totals, books = asyncio.run(_load_and_read(serve, accounts, options))
    finished_s = serve.finish()
    stored = serve.stored()
    status = serve.stop()
    verified = serve.command("ledger", "verify", "--offline", "--json", timeout_s=3_600)
    ledger = json.loads(verified.stdout) if verified.stdout else {}
    checks = [
        *_checks(totals, books, stored),
        Check("messages that ledger verify saw", stored, ledger.get("messages", -1)),
        Check("discrepancies that ledger verify found", 0, len(ledger.get("discrepancies", [None]))),
        Check("exit status of ledger verify", 0, verified.returncode),
        Check("exit status of serve", 0, status),
    ]
    result = _benchmark(points, totals, idle_mb, finished_s, options.hours)
    print(report.table(result))
    print("\n".join(_line(check) for check in checks))
    document = report.as_json([result], settings=vars(options), folder=folder)
    document["checks"] = [
        {"name": c.name, "expected": c.expected, "found": c.found, "holds": c.holds} for c in checks
    ]
    report.write_json(document, _LATEST)
    return 0 if all(check.holds for check in checks) else 1


async def _load_and_read(
    serve: Hydrasms, accounts: Sequence[Account], options: argparse.Namespace
) -> tuple[list[tuple[float, float]], Totals, Books]:
    """Run the load for its time, watching memory (hours, MB), then read the accounts' books."""
    load = Load(serve.port, accounts, rate=options.rate, connections=options.connections)
    running = asyncio.create_task(load.run())
    points = await _watch(serve, load, running, options.hours)
    load.end()
    await running
    return points, load.totals, await _books(serve, accounts, load.totals)


async def _watch(
    serve: Hydrasms, load: Load, running: "asyncio.Task[None]", hours: float
) -> list[tuple[float, float]]:
    began = said = time.monotonic()
    step_s = max(_SHORTEST_STEP_S, hours * 3600 / _SAMPLES)
    points: list[tuple[float, float]] = []
    while (passed_s := time.monotonic() - began) < hours * 3600 and not running.done():
        if serve.process.poll() is not None:
            raise servers.ServerFailed(f"{serve.name} ended by itself:\n{serve.log.read_text()[-2000:]}")
        points.append((passed_s / 3600, serve.rss_mb()))
        if time.monotonic() - said > _SAID_EVERY_S:
            said = time.monotonic()
            print(
                f"{passed_s / 3600:.1f} h: {load.totals.accepted:,} accepted, {points[-1][1]:.0f} MB",
                flush=True,
            )
        await asyncio.wait([running], timeout=step_s)
    return points


async def _books(serve: Hydrasms, accounts: Sequence[Account], totals: Totals) -> Books:
    metadata = (("authorization", f"Bearer {serve.token}"),)
    spends = spent = refunded = missing = odd = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{serve.grpc_port}") as channel:
        stub = billing_service_pb2_grpc.BillingServiceStub(channel)
        for account in accounts:
            its_spent = 0
            async for entry in _transactions(stub, account.id, metadata):
                if entry.kind == pb.TRANSACTION_KIND_SPEND:
                    spends += 1
                    its_spent -= entry.amount
                elif entry.kind == pb.TRANSACTION_KIND_REFUND:
                    refunded += entry.amount
            request = pb.GetBalanceRequest(account_id=account.id)
            balance = await stub.GetBalance(request, metadata=metadata, timeout=_TIMEOUT_S)
            spent += its_spent
            missing += CREDITS - balance.balance
            odd += its_spent != totals.credits_of[account.id]
    return Books(spends, spent, refunded, missing, odd)


async def _transactions(
    stub: "billing_service_pb2_grpc.BillingServiceAsyncStub",
    account_id: str,
    metadata: tuple[tuple[str, str], ...],
) -> AsyncIterator[pb.Transaction]:
    token = ""
    while True:
        request = pb.ListTransactionsRequest(account_id=account_id, page_size=_PAGE, page_token=token)
        page = await stub.ListTransactions(request, metadata=metadata, timeout=_TIMEOUT_S)
        for entry in page.transactions:
            yield entry
        token = page.next_page_token
        if not token:
            return


def _checks(totals: Totals, books: Books, stored: int) -> list[Check]:
    """Hold what was acknowledged against what is stored and what was debited."""
    # A request whose connection broke may count or not, with 5 credits at most.
    most = totals.accepted + totals.unknown
    most_credits = totals.credits + 5 * totals.unknown
    return [
        Check("answers other than the right one", 0, sum(totals.refused.values())),
        Check("messages stored = acknowledged", totals.accepted, stored, most),
        Check("spends in the transactions = acknowledged", totals.accepted, books.spends, most),
        Check("credits in the transactions = acknowledged", totals.credits, books.spent, most_credits),
        Check(
            "credits gone from the balances = spent - refunded", books.spent - books.refunded, books.missing
        ),
        Check("accounts whose spends differ from the answers", 0, books.odd, totals.unknown),
    ]


def _benchmark(
    points: list[tuple[float, float]], totals: Totals, idle_mb: float, finished_s: float, hours: float
) -> Benchmark:
    # What the first hour brings in (caches, pools, the database's pages) is no leak.
    settled = min(1.0, hours / 4)
    later = [point for point in points if point[0] >= settled]
    facts = [
        Fact("memory idle", idle_mb, "MB", "under 120 expected"),
        Fact("memory, greatest", max((mb for _, mb in points), default=idle_mb), "MB"),
        Fact("repeats answered again", totals.replayed),
        Fact("connections that broke", totals.unknown),
        Fact("behind the rate", totals.late_s, "s", "summed over all connections"),
        Fact("all finished after", finished_s, "s"),
    ]
    ratio = Ratio("memory growth, MB an hour", [slope(later)], at_most=5)
    return Benchmark("soak", [Case("sends over REST", [totals.sample(hours * 3600)])], [ratio], facts)


def _line(check: Check) -> str:
    verdict = "ok   " if check.holds else "WRONG"
    return f"  {verdict}  {check.name}: expected {check.expected:,}, found {check.found:,}"


if __name__ == "__main__":
    sys.exit(main())
