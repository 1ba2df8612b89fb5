"""Loopback, TCP, Unix socket and TLS: no caller can tell them apart."""

import asyncio
import contextlib
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms.messaging.v1 import messaging_service_pb2_grpc as pb_grpc
from hydrasms_app.certificates import CLIENT_NAME, make_trial_certificates
from hydrasms_app.tls import Identity
from hydrasms_base.metrics import Metrics
from hydrasms_core.caller import caller
from hydrasms_core.errors import ApiKeyDisabled, InvalidRecipient, Overloaded, UnknownApiKey
from hydrasms_core.rpc.auth import Authentication, ServiceTokens, account_methods
from hydrasms_core.rpc.interceptors import Deadlines, Errors, Observation, Pipeline, RequestIds
from hydrasms_core.rpc.server import AddressInUse, GrpcServer
from tests.support.transports import (
    SOCKETS,
    TRANSPORTS,
    channel_to,
    channels_to,
    client_identity,
    core_identity,
)

SERVICE = "hydrasms.messaging.v1.MessagingService"
TOKEN = "a-service-token"
OPERATOR = (("authorization", f"Bearer {TOKEN}"),)
ACCOUNT = (*OPERATOR, ("hydrasms-key-digest", "good"))


class Keys:
    async def account_of(self, digest):
        if digest == "disabled":
            raise ApiKeyDisabled("This API key is disabled.")
        if digest != "good":
            raise UnknownApiKey("This API key is unknown.")
        return "account-1"


# mypy takes servicers for abstract; the generated base answers UNIMPLEMENTED for what is left out.
class Probe(pb_grpc.MessagingServiceServicer):
    """Does what the content of a message says."""

    def __init__(self):
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.peers = []

    async def SendMessage(self, request, context):
        self.entered.set()
        security = context.auth_context().get("transport_security_type", ())
        self.peers.append((context.peer().partition(":")[0], [each.decode() for each in security]))
        if request.content == "domain":
            raise InvalidRecipient("That is no number.", field="recipient", metadata={"hint": "E.164"})
        if request.content == "busy":
            raise Overloaded
        if request.content == "bug":
            raise ZeroDivisionError("a secret detail")
        if request.content == "hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        who = caller()
        request.content = "changed by the servicer"
        return pb.SendMessageResponse(idempotent_replayed=who.account_id == "account-1")

    async def EstimateMessage(self, request, context):
        await context.abort(grpc.StatusCode.DATA_LOSS, "said the servicer itself")


class Served:
    def __init__(self, channel, probe, metrics):
        self.channel = channel
        self.stub = pb_grpc.MessagingServiceStub(channel)
        self.probe = probe
        self.metrics = metrics

    async def send(self, content, metadata=ACCOUNT, timeout=10.0):
        return await self.stub.SendMessage(
            pb.SendMessageRequest(content=content), metadata=metadata, timeout=timeout
        )

    async def refusal(self, content, metadata=ACCOUNT, timeout=10.0):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.send(content, metadata, timeout)
        return caught.value


@contextlib.asynccontextmanager
async def serving(tmp_path, clock, *, reflect=False, trusted_names=frozenset({CLIENT_NAME})):
    (tmp_path / "token").write_text(TOKEN + "\n")
    metrics, probe = Metrics(), Probe()  # type: ignore[abstract]
    authentication = Authentication(
        ServiceTokens(tmp_path / "token", clock),
        Keys(),
        {f"/{SERVICE}/SendMessage": True, f"/{SERVICE}/EstimateMessage": False},
        trusted_names=trusted_names,
    )
    server = GrpcServer(
        Pipeline(
            [RequestIds(), Observation(metrics), Errors(), Deadlines(), authentication],
            guard=authentication.guard_stream,
        ),
        lambda target: pb_grpc.add_MessagingServiceServicer_to_server(probe, target),
        services=[SERVICE],
        reflect=reflect,
    )
    socket = f"unix:{tmp_path / 'core.sock'}"
    port = server.listen("127.0.0.1:0")
    server.listen(socket)
    secure_port = server.listen("127.0.0.1:0", core_identity().for_server())
    await server.start()
    try:
        yield server, [f"127.0.0.1:{port}", socket, f"127.0.0.1:{secure_port}"], probe, metrics
    finally:
        await server.stop(1.0)


@pytest.fixture(params=TRANSPORTS)
async def served(request, tmp_path, clock):
    async with serving(tmp_path, clock) as (server, addresses, probe, metrics):
        if request.param == "loopback":
            yield Served(server.loopback, probe, metrics)
            return
        async with channels_to(addresses) as channels:
            yield Served(channels[request.param], probe, metrics)


async def test_the_transports_are_what_they_are_called(tmp_path, clock):
    async with serving(tmp_path, clock) as (server, addresses, probe, metrics):
        async with channels_to(addresses) as channels:
            for channel in (server.loopback, *(channels[name] for name in SOCKETS)):
                await Served(channel, probe, metrics).send("hello")
        assert probe.peers == [
            ("loopback", []),
            ("ipv4", ["insecure"]),
            ("unix", ["insecure"]),
            ("ipv4", ["ssl"]),
        ]


async def test_an_answer_comes_back_and_caller_and_servicer_share_nothing(served):
    request = pb.SendMessageRequest(content="hello")
    reply = await served.stub.SendMessage(request, metadata=ACCOUNT, timeout=10)
    assert reply.idempotent_replayed
    assert request.content == "hello"


async def test_a_domain_error_arrives_with_reason_field_and_metadata(served):
    error = await served.refusal("domain")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "That is no number."
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details = rpc_status.from_call(error).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(bad)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "INVALID_RECIPIENT",
        "hydrasms",
        {"hint": "E.164"},
    )
    assert bad.field_violations[0].field == "recipient"


async def test_a_refusal_that_passes_says_when_to_try_again(served):
    error = await served.refusal("busy")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(error).details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1


async def test_a_bug_shows_as_an_internal_error_without_its_detail(served):
    error = await served.refusal("bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)


async def test_a_passed_deadline_is_deadline_exceeded_and_stops_the_servicer(served):
    error = await served.refusal("hang", timeout=0.2)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served.probe.cancelled.wait(), 10)


async def test_a_caller_that_goes_away_stops_the_servicer(served):
    call = asyncio.ensure_future(served.send("hang"))
    await asyncio.wait_for(served.probe.entered.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(served.probe.cancelled.wait(), 10)


async def test_an_unknown_method_is_unimplemented(served):
    call = served.channel.unary_unary(
        "/hydrasms.messaging.v1.MessagingService/Nothing",
        request_serializer=pb.SendMessageRequest.SerializeToString,
        response_deserializer=pb.SendMessageResponse.FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(pb.SendMessageRequest(), metadata=OPERATOR, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_over_the_limit_is_refused(served):
    error = await served.refusal("x" * (4 * 1024 * 1024))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_servicers_own_abort_arrives_as_it_is(served):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.EstimateMessage(pb.EstimateMessageRequest(), metadata=OPERATOR, timeout=10)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.DATA_LOSS,
        "said the servicer itself",
    )


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", TOKEN),),
        (("authorization", "Bearer "),),
        (*OPERATOR, *OPERATOR),
        (("hydrasms-key-digest", "good"),),
    ],
)
async def test_without_the_service_token_nobody_gets_in(served, metadata):
    error = await served.refusal("hello", metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not served.probe.entered.is_set()


@pytest.mark.parametrize(
    ("digest", "code"),
    [("nobody's", grpc.StatusCode.UNAUTHENTICATED), ("disabled", grpc.StatusCode.PERMISSION_DENIED)],
)
async def test_a_key_that_is_not_good_is_refused(served, digest, code):
    error = await served.refusal("hello", (*OPERATOR, ("hydrasms-key-digest", digest)))
    assert error.code() is code


async def test_a_method_for_operators_is_refused_to_a_key(served):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.EstimateMessage(pb.EstimateMessageRequest(), metadata=ACCOUNT, timeout=10)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_token_that_is_taken_out_of_the_file_is_refused_within_a_second(served, tmp_path, clock):
    await served.send("hello")
    (tmp_path / "token").write_text("the-next-token\n" + TOKEN + "\n")
    clock.advance(1)
    await served.send("hello")
    (tmp_path / "token").write_text("the-next-token\n")
    clock.advance(1)
    assert (await served.refusal("hello")).code() is grpc.StatusCode.UNAUTHENTICATED
    await served.send("hello", (("authorization", "Bearer the-next-token"), ACCOUNT[1]))


async def test_health_needs_no_token(served):
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    for service in ("", SERVICE):
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_every_call_is_counted_under_its_status(served):
    await served.send("hello")
    await served.refusal("domain")
    await served.refusal("bug")
    text = served.metrics.render().decode()
    method = f"/{SERVICE}/SendMessage"
    for code in ("OK", "INVALID_ARGUMENT", "INTERNAL"):
        assert f'hydrasms_rpc_calls_total{{code="{code}",method="{method}"}} 1.0' in text


async def test_metadata_that_no_wire_could_carry_is_refused_on_the_loopback(tmp_path, clock):
    async with serving(tmp_path, clock) as (server, _, _probe, _metrics):
        stub = pb_grpc.MessagingServiceStub(server.loopback)
        for metadata in ((("X-Upper", "value"),), (("x-accent", "é"),), (("x-line", "a\nb"),)):
            with pytest.raises(ValueError, match="metadata"):
                await stub.SendMessage(pb.SendMessageRequest(), metadata=metadata, timeout=10)


async def test_a_second_server_on_the_port_is_refused(tmp_path, clock):
    async with serving(tmp_path, clock) as (_server, addresses, _probe, _metrics):
        other = GrpcServer(
            Pipeline([], guard=lambda _method, handler: handler),
            lambda target: None,
            services=[],
            reflect=False,
        )
        with pytest.raises(AddressInUse):
            other.listen(addresses[0])
        await other.stop(0)


# ---- certificates ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def over_tls(tmp_path, clock, identity, **more):
    async with serving(tmp_path, clock, **more) as (_server, addresses, probe, metrics):
        async with channel_to(addresses[SOCKETS.index("tls")], identity) as channel:
            yield Served(channel, probe, metrics)


async def test_a_certificate_with_a_trusted_name_needs_no_token(tmp_path, clock):
    async with over_tls(tmp_path, clock, client_identity()) as served:
        await served.send("hello", ())
        assert (await served.send("hello", (ACCOUNT[1],))).idempotent_replayed
        error = await served.refusal("hello", (("hydrasms-key-digest", "nobody's"),))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_beside_such_a_certificate_a_token_of_another_core_does_no_harm(tmp_path, clock):
    async with over_tls(tmp_path, clock, client_identity()) as served:
        await served.send("hello", (("authorization", "Bearer wrong"),))


async def test_a_certificate_with_another_name_needs_a_token(tmp_path, clock):
    async with over_tls(tmp_path, clock, core_identity()) as served:
        assert (await served.refusal("hello", ())).code() is grpc.StatusCode.UNAUTHENTICATED
        assert not served.probe.entered.is_set()
        await served.send("hello")


async def test_no_name_is_trusted_unless_it_is_listed(tmp_path, clock):
    async with over_tls(tmp_path, clock, client_identity(), trusted_names=frozenset()) as served:
        assert (await served.refusal("hello", ())).code() is grpc.StatusCode.UNAUTHENTICATED


def strangers(tmp_path):
    made = make_trial_certificates(tmp_path / "strangers", (), 1)
    return made, Identity(made.client.read_bytes(), made.client_key.read_bytes(), core_identity().authority)


async def test_a_certificate_of_another_authority_is_refused_whatever_its_name(tmp_path, clock):
    _, stranger = strangers(tmp_path)
    async with over_tls(tmp_path, clock, stranger) as served:
        assert (await served.refusal("hello")).code() is grpc.StatusCode.UNAVAILABLE
        assert not served.probe.entered.is_set()


async def test_a_client_without_a_certificate_is_refused(tmp_path, clock):
    async with serving(tmp_path, clock) as (_server, addresses, probe, metrics):
        credentials = grpc.ssl_channel_credentials(core_identity().authority)
        for channel in (
            grpc.aio.secure_channel(addresses[2], credentials),
            grpc.aio.insecure_channel(addresses[2]),
        ):
            async with channel:
                error = await Served(channel, probe, metrics).refusal("hello")
                assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not probe.entered.is_set()


async def test_a_client_sends_nothing_to_a_core_of_another_authority(tmp_path, clock):
    made, _ = strangers(tmp_path)
    own = client_identity()
    deceived = Identity(own.certificate, own.key, made.authority.read_bytes())
    async with over_tls(tmp_path, clock, deceived) as served:
        assert (await served.refusal("hello")).code() is grpc.StatusCode.UNAVAILABLE
        assert not served.probe.entered.is_set()


async def test_a_client_certificate_does_not_pass_for_a_core(tmp_path, clock):
    async with serving(tmp_path, clock) as (_server, _addresses, probe, metrics):
        impostor = GrpcServer(
            Pipeline([], guard=lambda _method, handler: handler),
            lambda target: pb_grpc.add_MessagingServiceServicer_to_server(probe, target),
            services=[],
            reflect=False,
        )
        port = impostor.listen("127.0.0.1:0", client_identity().for_server())
        await impostor.start()
        async with channel_to(f"127.0.0.1:{port}", client_identity()) as channel:
            error = await Served(channel, probe, metrics).refusal("hello")
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not probe.entered.is_set()
        await impostor.stop(0)


@pytest.mark.parametrize("token", [TOKEN, "wrong"])
async def test_reflection_is_behind_a_switch_and_the_token(tmp_path, clock, token):
    def requests():
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    metadata = (("authorization", f"Bearer {token}"),)
    async with serving(tmp_path, clock, reflect=True) as (_server, addresses, _probe, _metrics):
        async with channel_to(addresses[0]) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
            call = stub.ServerReflectionInfo(requests(), metadata=metadata, timeout=10)
            if token == TOKEN:
                names = [s.name async for reply in call for s in reply.list_services_response.service]
                assert SERVICE in names
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    [reply async for reply in call]
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with serving(tmp_path, clock) as (_server, addresses, _probe, _metrics):
        async with channel_to(addresses[0]) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [
                    reply
                    async for reply in stub.ServerReflectionInfo(requests(), metadata=OPERATOR, timeout=10)
                ]
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_method_is_an_accounts_own_where_it_has_an_http_annotation():
    methods = account_methods([pb.DESCRIPTOR])
    assert methods[f"/{SERVICE}/SendMessage"] is True
    assert methods[f"/{SERVICE}/ReceiveInbound"] is False
    assert len(methods) == len(pb.DESCRIPTOR.services_by_name["MessagingService"].methods)
