"""Cases of the RPC contract as YAML holds them: one rule each, with its gRPC and its HTTP expectation.

What each word means is in `tests/contract/cases/README.md`. A word that is not known fails when the files are read,
and so does a name that is given twice, a field that a message lacks, or a matcher that there is not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hydrasms.accounts.v1 import account_service_pb2
from hydrasms.billing.v1 import billing_service_pb2
from hydrasms.carriers.v1 import simulator_service_pb2
from hydrasms.errors.v1 import error_reason_pb2
from hydrasms.messaging.v1 import forwarding_service_pb2, messaging_service_pb2, shortcode_service_pb2
from hydrasms.webhooks.v1 import webhook_service_pb2
from tests.support.matching import unknown_matchers
from tests.support.transports import TRANSPORTS

EDGES = ("http", "split")
"""The edges that a request goes to: one in the core's process, and one that reaches it over a Unix socket."""

METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for file in (
        account_service_pb2.DESCRIPTOR,
        billing_service_pb2.DESCRIPTOR,
        forwarding_service_pb2.DESCRIPTOR,
        messaging_service_pb2.DESCRIPTOR,
        shortcode_service_pb2.DESCRIPTOR,
        simulator_service_pb2.DESCRIPTOR,
        webhook_service_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
    for method in service.methods
}
"""Every method of the product's services, as `Service.Method`."""

REASONS = frozenset(
    name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
)

# Who calls, besides the accounts that a case names.
SERVICE, NOBODY, STRANGER, IMPOSTOR = "service", "nobody", "stranger", "impostor"
REPEATED_LIST = frozenset({"repeat", "of"})
"""The members of what stands for a list of equal items."""

_WELL_KNOWN = frozenset({SERVICE, NOBODY, STRANGER, IMPOSTOR})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GivenAccount(_Strict):
    """An account that a case needs."""

    credits: int = 0
    plan: Literal["free", "premium"] = "free"
    sending: bool = True
    suspended: bool = False
    name: str = "test"
    key: Literal["enabled", "disabled", "deleted"] = "enabled"


class GivenInbound(_Strict):
    """A message from a phone that a case needs."""

    account: str
    sender: str = "+447700900000"
    shortcode: str = "order"
    content: str = ""
    webhook_status: int | None = None
    at_ms: int = 1_780_000_000_000
    bind: str | None = None
    times: int = Field(default=1, ge=1)


class Call(_Strict):
    """One call of an RPC."""

    rpc: str
    caller: str = Field(alias="as")
    request: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> "Call":
        if self.rpc not in METHODS:
            raise ValueError(f"there is no RPC {self.rpc}")
        return self

    @property
    def method(self) -> MethodDescriptor:
        """The method that is called."""
        return METHODS[self.rpc]


class GivenCall(Call):
    """A call that comes before the one that the case is about: it succeeds, or is refused for a reason."""

    bind: str | None = None
    refused: str | None = None
    until: dict[str, Any] | None = None
    times: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_until(self) -> "GivenCall":
        _check_members(self.method.output_type, self.until)
        _refuse_unknown_matchers(self.until)
        if self.refused is not None and self.refused not in REASONS:
            raise ValueError(f"there is no reason {self.refused}")
        return self


class Given(_Strict):
    """What there is before the call."""

    dispatcher: bool = False
    accounts: dict[str, GivenAccount] = {}
    inbound: list[GivenInbound] = []
    calls: list[GivenCall] = []


class GrpcError(_Strict):
    """A status that is expected, with its details; metadata are compared as a whole."""

    code: str
    reason: str
    field: str | None = None
    metadata: dict[str, Any] = {}
    message: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "GrpcError":
        if self.reason not in REASONS:
            raise ValueError(f"there is no reason {self.reason}")
        return self


class GrpcExpectation(_Strict):
    """What gRPC answers: a response that holds at least this, or an error."""

    response: dict[str, Any] | None = None
    error: GrpcError | None = None

    @model_validator(mode="after")
    def _check(self) -> "GrpcExpectation":
        if (self.response is None) == (self.error is None):
            raise ValueError("a gRPC expectation has either a response or an error")
        _refuse_unknown_matchers(self.response)
        return self


class HttpRequest(_Strict):
    """A request as an HTTP client makes it; the body is one of form, json, body and body_hex."""

    method: str = "POST"
    path: str = "/api/messages"
    caller: str | None = Field(default=None, alias="as")
    headers: dict[str, str | list[str]] = {}
    content_type: str | None = None
    form: dict[str, str] | None = None
    json_body: Any = Field(default=None, alias="json")
    body: str | None = None
    body_hex: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "HttpRequest":
        bodies = (self.form, self.json_body, self.body, self.body_hex)
        if sum(body is not None for body in bodies) > 1:
            raise ValueError("a request has one body")
        return self


class HttpExchange(_Strict):
    """A request, and the whole of what answers it. `refused` is short for the body of an error."""

    request: HttpRequest = HttpRequest()
    status: int
    headers: dict[str, str | None] = {}
    body: Any = None
    refused: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> "HttpExchange":
        if (self.body is None) == (self.refused is None):
            raise ValueError("an HTTP expectation has either a body or a refusal")
        if self.refused is not None and self.refused.get("code") not in REASONS:
            raise ValueError("a refusal has a code that is a reason")
        _refuse_unknown_matchers(self.body)
        _refuse_unknown_matchers(self.refused)
        return self


class After(_Strict):
    """What holds when the call is over, by account."""

    balances: dict[str, int] = {}
    messages: dict[str, int] = {}
    transactions: dict[str, int] = {}


class Case(_Strict):
    """One rule of the contract."""

    name: str
    given: Given = Given()
    call: Call | None = None
    grpc: GrpcExpectation | None = None
    http: HttpExchange | list[HttpExchange] = []
    after: After = After()

    @model_validator(mode="after")
    def _check(self) -> "Case":
        if (self.call is None) != (self.grpc is None):
            raise ValueError("a call and its gRPC expectation come together")
        if self.call is None and not self.exchanges:
            raise ValueError("a case calls something")
        if self.call is not None and self.grpc is not None and self.grpc.response is not None:
            _check_members(self.call.method.output_type, self.grpc.response)
        for name in self._names():
            if name not in self.given.accounts:
                raise ValueError(f"no account {name} is given")
        for account in self.given.accounts:
            if account in _WELL_KNOWN:
                raise ValueError(f"{account} is nobody's name")
        return self

    def _names(self) -> Iterator[str]:
        """Yield every account that the case speaks of."""
        callers = [call.caller for call in self.given.calls]
        callers += [] if self.call is None else [self.call.caller]
        callers += [each.request.caller for each in self.exchanges if each.request.caller is not None]
        yield from (name for name in callers if name not in _WELL_KNOWN and not name.startswith("${"))
        yield from (inbound.account for inbound in self.given.inbound)
        for counted in (self.after.balances, self.after.messages, self.after.transactions):
            yield from counted

    @property
    def exchanges(self) -> list[HttpExchange]:
        """The HTTP requests that stand for the same rule."""
        return self.http if isinstance(self.http, list) else [self.http]

    @property
    def transports(self) -> list[str]:
        """The ways in which the case is run: calls over every channel, requests to an edge within and one apart."""
        found = [] if self.call is None else list(TRANSPORTS)
        several = len(self.exchanges) > 1
        numbers = range(1, len(self.exchanges) + 1)
        return found + [f"{edge}-{n}" if several else edge for edge in EDGES for n in numbers]

    def exchange(self, transport: str) -> HttpExchange:
        """Return the request of a transport of `transports`."""
        return self.exchanges[int(transport.partition("-")[2] or 1) - 1]


class _Loader(yaml.SafeLoader):
    """YAML in which nothing is named twice: the first of two equal names would vanish in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(name) for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"{node.start_mark}: given twice: {', '.join(sorted(twice))}")
        return super().construct_mapping(node, deep)


def parse_cases(text: str) -> list[Case]:
    """Return the cases of one file; raises ValueError for whatever is not known."""
    documents = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    return [Case.model_validate(document) for document in documents]


def load_cases(folder: Path) -> list[Case]:
    """Return the cases of every file of a folder, each with a name of its own."""
    cases: list[Case] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            cases += parse_cases(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two cases are called: {'; '.join(twice)}")
    return cases


def request_of(call: Call, fields: dict[str, Any]) -> Any:
    """Return the request of a call; raises json_format.ParseError for a field that it has not."""
    return json_format.ParseDict(fields, message_factory.GetMessageClass(call.method.input_type)())


def _refuse_unknown_matchers(expected: Any) -> None:
    unknown = unknown_matchers(expected)
    if unknown:
        raise ValueError(f"there is no matcher {', '.join(unknown)}")


def _check_members(descriptor: Descriptor, expected: Any) -> None:
    """Raise ValueError where an expectation names a field that a message does not have."""
    # The JSON of a well-known type is a text; Any holds whatever its type says.
    if not isinstance(expected, dict) or descriptor.full_name == "google.protobuf.Any":
        return
    if expected.keys() == REPEATED_LIST:
        _check_members(descriptor, expected["of"])
        return
    fields = {field.json_name: field for field in descriptor.fields}
    for name, value in expected.items():
        if name not in fields:
            raise ValueError(f"{descriptor.name} has no field {name}")
        inner = fields[name].message_type
        if inner is not None:
            for each in value if isinstance(value, list) else [value]:
                _check_members(inner, each)
