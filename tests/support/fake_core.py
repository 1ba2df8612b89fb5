"""A core that answers what a test tells it to, over a real socket, and remembers what it was asked."""

import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status
from typer.testing import CliRunner, Result

from hydrasms.accounts.v1 import account_service_pb2
from hydrasms.billing.v1 import billing_service_pb2
from hydrasms.carriers.v1 import simulator_service_pb2
from hydrasms.messaging.v1 import messaging_service_pb2, shortcode_service_pb2
from hydrasms.webhooks.v1 import webhook_service_pb2
from hydrasms_app.cli import app
from hydrasms_core.errors import DomainError, InvalidServiceToken
from hydrasms_core.rpc.errors import to_status

TOKEN = "a-token-for-tests"
BOUND_S = 20.0

_METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in (
        account_service_pb2,
        billing_service_pb2,
        simulator_service_pb2,
        messaging_service_pb2,
        shortcode_service_pb2,
        webhook_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True)
class Call:
    """One call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str]


@dataclass(frozen=True)
class Failure:
    """A status that gRPC itself would make: it has no reason."""

    code: grpc.StatusCode
    details: str = "no more is known"


class FakeCore(grpc.GenericRpcHandler):
    """Answers each method with the last thing that it was told, and everything before that once."""

    def __init__(self, token_file: Path) -> None:
        self.address = ""
        self.token_file = token_file
        self.calls: list[Call] = []
        self.never = threading.Event()
        self._answers: dict[str, list[Any]] = defaultdict(list)

    def answer(self, method: str, *answers: Any) -> None:
        """Set what a method answers: messages, domain errors, failures, or `never` (until the test ends)."""
        self._answers[method] = list(answers)

    @property
    def request(self) -> Any:
        """The one request that arrived."""
        (call,) = self.calls
        return call.request

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = _METHODS.get(handler_call_details.method)
        if method is None:
            return None

        def behave(request: Any, context: grpc.ServicerContext) -> Any:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            if metadata.get("authorization") != f"Bearer {TOKEN}":
                _abort(context, InvalidServiceToken("Send the service token."))
            self.calls.append(Call(method.name, request, metadata))
            answers = self._answers[method.name]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is self.never:
                assert self.never.wait(BOUND_S)
            if isinstance(answer, DomainError):
                _abort(context, answer)
            if isinstance(answer, Failure):
                context.abort(answer.code, answer.details)
            return answer

        return grpc.unary_unary_rpc_method_handler(
            behave,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )


@contextlib.contextmanager
def running_core(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[FakeCore]:
    """Serve on a free port, and make the environment and the token file lead there."""
    core = FakeCore(folder / "service.token")
    core.token_file.write_text(f"{TOKEN}\n")
    server = grpc.server(ThreadPoolExecutor(4), handlers=[core], options=[("grpc.so_reuseport", 0)])
    core.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    add_HealthServicer_to_server(HealthServicer(), server)
    server.start()
    monkeypatch.setenv("HYDRASMS_CORE", core.address)
    monkeypatch.setenv("HYDRASMS_TOKEN_FILE", str(core.token_file))
    try:
        yield core
    finally:
        core.never.set()
        assert server.stop(None).wait(BOUND_S)


def run(*arguments: str, standard_input: bytes = b"") -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(app, arguments, input=standard_input)


def json_of(result: Result) -> Any:
    """Return what a command printed, after checking that it is one line of JSON and that all went well."""
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def text_of(result: Result) -> str:
    """Return what a command printed, after checking that all went well."""
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def failure_of(result: Result, status: int = 1) -> str:
    """Return a command's complaint, after checking that it is one line on standard error and all there is."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    return one_line(result.stderr)


def one_line(text: str) -> str:
    """Return the complaint on standard error, after checking that it is one line."""
    line, end, rest = text.partition("\n")
    assert (end, rest) == ("\n", "")
    assert line.startswith("hydrasms: ")
    return line.removeprefix("hydrasms: ")


def _abort(context: grpc.ServicerContext, error: DomainError) -> None:
    context.abort_with_status(rpc_status.to_status(to_status(error)))
