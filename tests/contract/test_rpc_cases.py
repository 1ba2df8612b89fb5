"""The RPC contract, case by case, over every transport: in memory, over TCP, a Unix socket and TLS, and over the REST
API where it has an equivalent, at an edge in the core's process and at one apart. They cannot be told apart.
`cases/README.md` says how a case is written.
"""

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format

from tests.support.case_runner import CaseRun
from tests.support.cases import METHODS, REASONS, load_cases, parse_cases, request_of
from tests.support.databases import ON_SQLITE, copy_of
from tests.support.product import product_in
from tests.support.split import forwarded

CASES = load_cases(Path(__file__).with_name("cases"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def products(database_kind, database_template, tmp_path_factory):
    """Two products for all cases, by whether they have a dispatcher; every case brings accounts of its own."""
    folders = {dispatcher: tmp_path_factory.mktemp("product") for dispatcher in (False, True)}
    async with contextlib.AsyncExitStack() as stack:
        up = {}
        for dispatcher, folder in folders.items():
            target = await stack.enter_async_context(copy_of(database_kind, database_template, folder))
            up[dispatcher] = await stack.enter_async_context(
                product_in(folder / "data", target, dispatcher=dispatcher, everywhere=True)
            )
        yield up


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("case", "transport"),
    [
        pytest.param(case, transport, id=f"{case.name} [{transport}]")
        for case in CASES
        for transport in case.transports
    ],
)
async def test_contract(products, case, transport):
    await CaseRun(case, products[case.given.dispatcher]).over(transport)


@pytest.mark.asyncio(loop_scope="module")
async def test_over_an_edge_apart_the_contract_holds_for_all_cases_at_once(products):
    """Whatever a send shares a call to the core with, its answer is its own."""
    before = [await forwarded(product.split) for product in products.values()]
    runs = [
        CaseRun(case, products[case.given.dispatcher]).over(transport)
        for case in CASES
        for transport in case.transports
        if transport.startswith("split")
    ]
    failures = [each for each in await asyncio.gather(*runs, return_exceptions=True) if each is not None]
    assert failures == []
    after = [await forwarded(product.split) for product in products.values()]
    sends, calls = (sum(now[n] - was[n] for now, was in zip(after, before, strict=True)) for n in (0, 1))
    assert sends > 100
    assert calls < sends


# ---- the cases leave nothing out ---------------------------------------------------------------------------

# Reasons that no call of this contract can be answered with, and where they are proved instead.
ELSEWHERE = {
    "UNSPECIFIED": "never sent",
    "DESTINATION_NOT_ALLOWED": "there are no destination policies yet",
    "ALREADY_DELIVERED": "a receiver that answers 2xx: tests/integration/test_webhook_service.py",
    "RATE_LIMITED": "there is no throttle yet",
    "IDEMPOTENCY_IN_PROGRESS": "another process holds the account: tests/integration/test_held_account.py",
    "INTERNAL": "a bug: tests/integration/test_channels.py",
    "UNAVAILABLE": "a store that is away: tests/contract/test_group_commit.py",
    "DEADLINE_EXCEEDED": "a core that hangs: tests/integration/test_channels.py",
    "UNIMPLEMENTED": "no stub has a method that the server lacks: tests/integration/test_channels.py",
}


def test_every_rpc_has_a_case_that_succeeds_and_one_that_is_refused():
    succeeding = {
        case.call.rpc for case in CASES if case.call and case.grpc and case.grpc.response is not None
    }
    refused = {case.call.rpc for case in CASES if case.call and case.grpc and case.grpc.error is not None}
    assert succeeding == set(METHODS)
    assert refused == set(METHODS)


def test_every_reason_has_a_case_or_says_why_not():
    over_grpc = {case.grpc.error.reason for case in CASES if case.grpc and case.grpc.error}
    over_http = {each.refused["code"] for case in CASES for each in case.exchanges if each.refused}
    assert over_grpc | over_http == REASONS - ELSEWHERE.keys()


def test_every_answer_of_the_public_endpoints_that_a_reason_can_give_has_a_case_over_http():
    for case in CASES:
        if case.call and case.grpc and case.grpc.error and case.exchanges:
            codes = {each.refused["code"] for each in case.exchanges if each.refused}
            own = {"MISSING_API_KEY"} if case.call.caller == "nobody" else {case.grpc.error.reason}
            assert codes == own, case.name


# ---- the runner can fail -------------------------------------------------------------------------------------

SOUND = """
- name: a sound case
  given: {accounts: {alice: {credits: 2}}, inbound: [{account: alice}]}
  call: {rpc: MessagingService.SendMessage, as: alice, request: {recipient: "+447700900000", content: Hello}}
  grpc:
    response: {message: {content: Hello, credits: 1, id: <uuid7>}, idempotentReplayed: false}
  http:
    request: {form: {recipient: "+447700900000", content: Hello}}
    status: 200
    body:
      ID: <uuid7>
      sent_from: <text>
      sent_to: <text>
      sent_to_parsed: <any>
      owner: <any>
      content: Hello
      creditCost: 1
  after: {balances: {alice: 1}, messages: {alice: 1}, transactions: {alice: 2}}
- name: a sound refusal
  given: {accounts: {alice: {credits: 1}}}
  call: {rpc: MessagingService.SendMessage, as: alice, request: {recipient: "+447700900000", content: "${161*x}"}}
  grpc:
    error: {code: FAILED_PRECONDITION, reason: INSUFFICIENT_CREDITS, metadata: {balance: "1", credit_cost: "2"}}
  http:
    request: {form: {recipient: "+447700900000", content: "${161*x}"}}
    status: 400
    refused: {code: INSUFFICIENT_CREDITS, balance: 1, creditCost: 2}
- name: a sound field
  given: {accounts: {alice: {}}}
  call: {rpc: MessagingService.EstimateMessage, as: alice}
  grpc:
    error: {code: INVALID_ARGUMENT, reason: INVALID_CONTENT, field: content}
- name: a sound preparation
  given:
    accounts: {alice: {}}
    calls: [{rpc: MessagingService.EstimateMessage, as: alice, refused: INVALID_CONTENT}]
  call: {rpc: BillingService.ListTransactions, as: alice}
  grpc:
    response: {transactions: []}
"""

WRONG = [
    ("a text", "content: Hello, credits: 1", "content: Bye, credits: 1"),
    ("a number", "credits: 1, id", "credits: 2, id"),
    ("a number as a truth", "credits: 1, id", "credits: true, id"),
    ("a matcher", "id: <uuid7>}, idem", "id: <timestamp>}, idem"),
    ("a member too many", "idempotentReplayed: false", "idempotentReplayed: <absent>"),
    ("a status", "status: 200", "status: 201"),
    ("a header that is missing", "status: 200", 'status: 200, headers: {Idempotent-Replayed: "true"}'),
    ("a header that came unasked", "status: 200", "status: 200, headers: {Cache-Control: null}"),
    ("a header of another value", "status: 200", "status: 200, headers: {content-type: text/plain}"),
    ("a body's member", "creditCost: 1", "creditCost: 5"),
    ("a body's missing member", "creditCost: 1", "creditCost: 1\n      extra: 1"),
    ("a body's member that came unasked", "      owner: <any>\n", ""),
    ("a balance", "balances: {alice: 1}", "balances: {alice: 2}"),
    ("a count of messages", "messages: {alice: 1}", "messages: {alice: 0}"),
    ("a count of transactions", "transactions: {alice: 2}", "transactions: {alice: 3}"),
    ("a code", "code: FAILED_PRECONDITION", "code: INTERNAL"),
    ("a reason", "reason: INSUFFICIENT_CREDITS", "reason: NOT_FOUND"),
    ("a metadata value", 'balance: "1"', 'balance: "7"'),
    ("metadata that came unasked", ', credit_cost: "2"', ""),
    ("a field that is not named", "reason: INSUFFICIENT_CREDITS", "reason: INSUFFICIENT_CREDITS, field: content"),
    ("the words of an error", "reason: INSUFFICIENT_CREDITS", "reason: INSUFFICIENT_CREDITS, message: Other"),
    ("a code over HTTP", "refused: {code: INSUFFICIENT_CREDITS", "refused: {code: NOT_FOUND"),
    ("figures over HTTP", "balance: 1, creditCost: 2", "balance: 1"),
    ("another field", "field: content", "field: recipient"),
    ("no field", ", field: content", ""),
    ("a response instead of an error", "error: {code: INVALID_ARGUMENT, reason: INVALID_CONTENT, field: content}",
     "response: {}"),
    ("a refusal on the way", "refused: INVALID_CONTENT", "refused: NOT_FOUND"),
    ("a list's length", "transactions: []", "transactions: [<any>]"),
]  # fmt: skip


def fully_parsed(text):
    # One-line members of a block mapping, so that a replacement may add another beside them.
    return parse_cases("\n".join(_split_members(line) for line in text.splitlines()))


def _split_members(line):
    if line.startswith("    status: ") and "," in line:
        status, _, rest = line.partition(", ")
        return f"{status}\n    {rest}"
    return line


@ON_SQLITE
@pytest.mark.asyncio(loop_scope="module")
async def test_the_sound_cases_that_the_next_test_breaks_pass(products):
    for case in fully_parsed(SOUND):
        for transport in case.transports:
            await CaseRun(case, products[False]).over(transport)


@ON_SQLITE
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("what", "right", "wrong"), WRONG, ids=[what for what, _, _ in WRONG])
async def test_a_wrong_expectation_fails(products, what, right, wrong):
    assert SOUND.count(right) == 1, "the replacement is not clear"
    failed = []
    for case in fully_parsed(SOUND.replace(right, wrong)):
        for transport in case.transports:
            try:
                await CaseRun(case, products[False]).over(transport)
            except (AssertionError, grpc.aio.AioRpcError):
                failed.append(f"{case.name} [{transport}]")
    assert failed


@pytest.mark.parametrize(
    ("right", "typo"),
    [
        ("given: {accounts: {alice: {credits: 2}}", "givn: {accounts: {alice: {credits: 2}}"),
        ("credits: 2}}, inbound", "credit: 2}}, inbound"),
        ("inbound: [{account: alice}]", "inbound: [{account: alice, text: x}]"),
        ("inbound: [{account: alice}]", "inbound: [{account: alicia}]"),
        ("rpc: MessagingService.SendMessage, as: alice, request: {recipient: \"+447700900000\", content: Hello}",
         "rpc: MessagingService.SendMesage, as: alice"),
        ("request: {recipient: \"+447700900000\", content: Hello}}\n  grpc", "requests: {}}\n  grpc"),
        ("response: {message: {content", "response: {mesage: {content"),
        ("response: {message: {content", "response: {message: {contents"),
        ("id: <uuid7>}, idem", "id: <uuid>}, idem"),
        ("ID: <uuid7>", "ID: <uuid8>"),
        ("form: {recipient: \"+447700900000\", content: Hello}}\n    status: 200", "from: {}}\n    status: 200"),
        ("status: 200", "stauts: 200"),
        ("after: {balances", "after: {balance"),
        ("transactions: {alice: 2}", "transactions: {alicia: 2}"),
        ("metadata: {balance: \"1\", credit_cost: \"2\"}", "meta: {}"),
        ("reason: INSUFFICIENT_CREDITS", "reason: INSUFFICIENT_CREDIT"),
        ("refused: {code: INSUFFICIENT_CREDITS", "refused: {code: INSUFFICIENT_CREDIT"),
        ("refused: INVALID_CONTENT", "refused: INVALID_CONTENTS"),
        ("name: a sound refusal", "name: a sound refusal\n  name: another"),
        ("status: 400", "status: 400\n    body: {}"),
        ("field: content}", "field: content}\n    response: {}"),
    ],
)  # fmt: skip
def test_a_word_that_is_not_known_fails_when_the_case_is_read(right, typo):
    assert SOUND.count(right) == 1, "the replacement is not clear"
    parse_cases(SOUND)
    with pytest.raises(ValueError):
        parse_cases(SOUND.replace(right, typo))


def test_a_field_that_a_request_lacks_fails():
    case = parse_cases(SOUND)[0]
    assert case.call is not None
    with pytest.raises(json_format.ParseError):
        request_of(case.call, {"recipent": "+447700900000"})


def test_two_cases_of_one_name_fail(tmp_path):
    (tmp_path / "a.yaml").write_text(SOUND)
    assert len(load_cases(tmp_path)) == 4
    (tmp_path / "b.yaml").write_text(SOUND)
    with pytest.raises(ValueError, match="a sound case"):
        load_cases(tmp_path)
