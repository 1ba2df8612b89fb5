"""Runs one case over one transport, and raises an AssertionError that says where the answer differs."""

import itertools
import re
from typing import Any
from urllib.parse import urlencode

import grpc
import httpx2
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms_base.ids import new_id
from hydrasms_base.keys import digest_key, generate_key
from hydrasms_core.messaging.model import InboundMessage
from tests.support.cases import (
    EDGES,
    IMPOSTOR,
    NOBODY,
    REPEATED_LIST,
    SERVICE,
    STRANGER,
    Call,
    Case,
    GivenAccount,
    GivenCall,
    GivenInbound,
    GrpcError,
    HttpExchange,
    HttpRequest,
    request_of,
)
from tests.support.matching import differences
from tests.support.product import TIMEOUT_S, Metadata, Product, Stubs, TestAccount
from tests.support.waiting import eventually

_PLANS = {"free": accounts_pb.PLAN_FREE, "premium": accounts_pb.PLAN_PREMIUM}
_REFERENCE = re.compile(r"\$\{([^}]+)\}", re.ASCII)
_REPEATED = re.compile(r"([0-9]+)\*(.+)", re.ASCII | re.DOTALL)
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"
_ANSWERED = {
    "date": "<text>",
    "content-length": "<text>",
    "content-type": _JSON,
    "cache-control": "no-store",
    "x-request-id": "<uuid7>",
}
"""The headers of every answer, unless a case says otherwise."""

# Simulated phones are shared by all cases, so each run has one of its own; these numbers are scripted to nothing.
_phones = (f"+4477009{number:05}" for number in itertools.count(1_000) if not 901 <= number % 10_000 <= 913)
# And so are shortcodes, of which one account has each.
_words = (f"case{number}" for number in itertools.count(1))


class CaseRun:
    """One run of a case: what it was given, by name, and the product that it runs on."""

    def __init__(self, case: Case, product: Product) -> None:
        self._case = case
        self._product = product
        self._names: dict[str, Any] = {
            "phone": next(_phones),
            "word": next(_words),
            "missing": new_id(),
            "digest": digest_key(generate_key()),
            STRANGER: TestAccount(new_id(), generate_key(), new_id()),
        }

    async def over(self, transport: str) -> None:
        """Put up what is given, make the call and hold the answer against what is expected."""
        edge = transport.partition("-")[0]
        is_request = edge in EDGES
        stubs = self._product.loopback if is_request else self._product.stubs[transport]
        await self._prepare(stubs)
        if is_request:
            client = self._product.http if edge == "http" else self._product.split
            assert client is not None
            await self._check_http(self._case.exchange(transport), client)
        else:
            await self._check_grpc(stubs)
        await self._check_after()

    async def _prepare(self, stubs: Stubs) -> None:
        for name, given in self._case.given.accounts.items():
            self._names[name] = await self._account(given)
        for inbound in self._case.given.inbound:
            stored = [await self._receive(inbound) for _ in range(inbound.times)]
            if inbound.bind is not None:
                self._names[inbound.bind] = {"id": stored[-1].id}
        for call in self._case.given.calls:
            for _ in range(call.times):
                await self._make_given_call(stubs, call)

    async def _account(self, given: GivenAccount) -> TestAccount:
        account = await self._product.account(
            credits=given.credits,
            plan=_PLANS[given.plan],
            sending=given.sending,
            suspended=given.suspended,
            name=given.name,
        )
        service, accounts = self._product.service, self._product.loopback.accounts
        if given.key == "disabled":
            await accounts.DisableApiKey(
                accounts_pb.DisableApiKeyRequest(api_key_id=account.key_id), metadata=service
            )
        elif given.key == "deleted":
            await accounts.DeleteApiKey(
                accounts_pb.DeleteApiKeyRequest(api_key_id=account.key_id), metadata=service
            )
        return account

    async def _receive(self, inbound: GivenInbound) -> InboundMessage:
        return await self._product.receive(
            self._names[inbound.account].id,
            sender=inbound.sender,
            shortcode=inbound.shortcode,
            content=self._resolved(inbound.content),
            webhook_status=inbound.webhook_status,
            at_ms=inbound.at_ms,
        )

    async def _make_given_call(self, stubs: Stubs, call: GivenCall) -> None:
        if call.refused is not None:
            reason = _error_of(await self._refusal(stubs, call))["reason"]
            assert reason == call.refused, f"{call.rpc}, given: refused for {reason}, not {call.refused}"
            return

        async def answer() -> Any:
            came = _as_json(await self._invoke(stubs, call))
            awaited = self._resolved(call.until or {})
            return None if differences(awaited, came, exact=False) else came

        came = await eventually(answer, what=f"{call.rpc}, given") if call.until else await answer()
        if call.bind is not None:
            self._names[call.bind] = came

    async def _check_grpc(self, stubs: Stubs) -> None:
        call, expected = self._case.call, self._case.grpc
        assert call is not None
        assert expected is not None
        if expected.error is not None:
            self._check_error(expected.error, await self._refusal(stubs, call))
            return
        response = _as_json(await self._invoke(stubs, call))
        _agree(differences(self._resolved(expected.response), response, exact=False, at="response"))

    def _check_error(self, expected: GrpcError, error: grpc.aio.AioRpcError) -> None:
        came = _error_of(error)
        wanted = {
            "code": expected.code,
            "reason": expected.reason,
            "domain": "hydrasms",
            "field": expected.field,
            "metadata": self._resolved(expected.metadata),
            "message": "<text>" if expected.message is None else expected.message,
        }
        _agree(differences(wanted, came, exact=True, at="error"))

    async def _check_http(self, exchange: HttpExchange, client: httpx2.AsyncClient) -> None:
        request_headers, body = self._http_request(exchange.request)
        answer = await client.request(
            exchange.request.method,
            exchange.request.path,
            headers=request_headers,
            content=body,
        )
        found = differences(exchange.status, answer.status_code, exact=True, at="status")
        own = {name.lower(): value for name, value in self._resolved(exchange.headers).items()}
        wanted = {name: value for name, value in {**_ANSWERED, **own}.items() if value is not None}
        came = {name.lower(): ", ".join(answer.headers.get_list(name)) for name in answer.headers}
        found += differences(wanted, came, exact=True, at="headers")
        found += self._body_differences(exchange, answer)
        _agree(found)

    def _http_request(self, request: HttpRequest) -> tuple[list[tuple[bytes, bytes]], bytes]:
        call = self._case.call
        caller = request.caller or (NOBODY if call is None else call.caller)
        body, content_type = self._http_body(request)
        headers: list[tuple[str, str]] = []
        if caller not in (NOBODY, SERVICE):
            headers.append(("Authorization", self._key_of(caller)))
        if request.content_type or content_type:
            headers.append(("Content-Type", request.content_type or content_type))
        for name, values in self._resolved(request.headers).items():
            headers += [(name, value) for value in ([values] if isinstance(values, str) else values)]
        return [(name.encode(), value.encode()) for name, value in headers], body

    def _http_body(self, request: HttpRequest) -> tuple[bytes, str]:
        if request.form is not None:
            return urlencode(self._resolved(request.form)).encode(), _FORM
        if request.json_body is not None:
            # As a client's own library writes it: a character beyond ASCII as it is.
            fields = self._resolved(request.json_body)
            return httpx2.Request("POST", "http://client", json=fields).read(), _JSON
        if request.body_hex is not None:
            return bytes.fromhex(request.body_hex), ""
        return str(self._resolved(request.body or "")).encode(), ""

    def _body_differences(self, exchange: HttpExchange, answer: httpx2.Response) -> list[str]:
        expected = self._resolved(exchange.body)
        if exchange.refused is not None:
            fixed = {"response": "<text>", "request_id": answer.headers.get("x-request-id")}
            expected = {**fixed, **self._resolved(exchange.refused)}
        is_json = answer.content != b"" and answer.headers.get("content-type") == _JSON
        return differences(expected, answer.json() if is_json else answer.text, exact=True, at="body")

    async def _check_after(self) -> None:
        after = self._case.after
        for name, balance in after.balances.items():
            found = await self._product.balance(self._names[name].id)
            assert found == balance, f"{name} has {found} credits, not {balance}"
        for name, count in after.messages.items():
            found = len(await self._product.messages(self._names[name].id))
            assert found == count, f"{name} has {found} messages, not {count}"
        for name, count in after.transactions.items():
            found = len(await self._product.transactions(self._names[name].id))
            assert found == count, f"{name} has {found} transactions, not {count}"

    async def _invoke(self, stubs: Stubs, call: Call) -> Any:
        service, _, method = call.rpc.partition(".")
        stub = getattr(stubs, _STUBS[service])
        request = request_of(call, self._resolved(call.request))
        return await getattr(stub, method)(request, metadata=self._metadata(call.caller), timeout=TIMEOUT_S)

    async def _refusal(self, stubs: Stubs, call: Call) -> grpc.aio.AioRpcError:
        try:
            response = await self._invoke(stubs, call)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError(f"{call.rpc} was not refused: {response}")

    def _metadata(self, caller: str) -> Metadata:
        if caller == NOBODY:
            return ()
        if caller == IMPOSTOR:
            return (("authorization", "Bearer not-the-service-token"),)
        if caller == SERVICE:
            return self._product.service
        return self._product.with_key(self._key_of(caller))

    def _key_of(self, caller: str) -> str:
        if caller.startswith("${"):
            return str(self._resolved(caller))
        account: TestAccount = self._names[caller]
        return account.key

    def _resolved(self, value: Any) -> Any:
        """Return a value of a case with every `${…}` replaced."""
        if isinstance(value, dict):
            if value.keys() == REPEATED_LIST:
                return [self._resolved(value["of"])] * int(value["repeat"])
            return {name: self._resolved(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, str):
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole is not None:
            return self._looked_up(whole.group(1))
        return _REFERENCE.sub(lambda found: str(self._looked_up(found.group(1))), value)

    def _looked_up(self, reference: str) -> Any:
        repeated = _REPEATED.fullmatch(reference)
        if repeated is not None:
            return repeated.group(2) * int(repeated.group(1))
        name, *path = reference.split(".")
        value = self._names[name]
        for step in path:
            if isinstance(value, list):
                value = value[int(step)]
            else:
                value = value[step] if isinstance(value, dict) else getattr(value, step)
        return value


_STUBS = {
    "MessagingService": "messaging",
    "ShortcodeService": "shortcodes",
    "ForwardingService": "forwarding",
    "BillingService": "billing",
    "AccountService": "accounts",
    "SimulatorService": "simulator",
    "WebhookService": "webhooks",
}


def _as_json(message: Any) -> Any:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _error_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """Return all that a status says, in one object; a status without our details fails."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, f"{error.code()} has no details"
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad_request)
    violations = bad_request.field_violations
    return {
        "code": error.code().name,
        "reason": info.reason,
        "domain": info.domain,
        "field": ", ".join(violation.field for violation in violations) or None,
        "metadata": dict(info.metadata),
        "message": error.details(),
    }


def _agree(found: list[str]) -> None:
    assert not found, "\n".join(found)
