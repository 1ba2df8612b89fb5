"""Sends that gather on their way to the core: fewer calls, and nothing that a caller could notice."""

import asyncio
import random
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import status_pb2
from grpc.aio import AioRpcError, Metadata
from grpc_status import rpc_status

from hydrasms.messaging.v1.forwarding_service_pb2 import ForwardedSendResult, ForwardSendsResponse
from hydrasms_core.errors import (
    IdempotencyMismatch,
    InsufficientCredits,
    InternalError,
    InvalidRecipient,
    Overloaded,
    UnknownApiKey,
)
from hydrasms_core.rpc.errors import to_status
from hydrasms_edge import coalescing
from hydrasms_edge.coalescing import Coalescer
from hydrasms_edge.errors import from_core
from tests.support.accounts import within_bounds
from tests.support.edge import KEY, edge_over_a_socket, make_edge
from tests.support.forwarding import Callers, FakeForwarding, accepted, content_of, refusal_of, refused
from tests.support.waiting import eventually

QUICK: dict[str, Any] = {"first_pause_s": 0.001, "max_pause_s": 0.002}


@pytest.fixture
def forwarding():
    return FakeForwarding()


@pytest.fixture
async def callers(forwarding):
    return Callers(forwarding, **QUICK)


# ---- gathering -------------------------------------------------------------------------------------------------


async def test_a_send_that_is_alone_goes_at_once_with_all_that_is_its_own(callers, forwarding):
    sending = callers.send("Hello", key="k", timeout=5.0, digest="ab" * 32)
    call = await forwarding.call(0)
    (item,) = call.request.items
    assert (item.key_digest, item.request_id) == ("ab" * 32, "request-of-Hello")
    assert (item.recipient, item.content, item.idempotency_key) == ("+447700900000", "Hello", "k")
    assert 4_000 < item.timeout_ms <= 5_000
    assert 4.0 < call.timeout <= 5.0
    call.accept()
    assert await content_of(sending) == "Hello"


async def test_a_call_opens_with_the_edges_token_and_has_a_request_id_of_its_own(callers, forwarding):
    sending = callers.send("Hello")
    call = await forwarding.call(0)
    assert call.metadata["authorization"].startswith("Bearer hsms_")
    assert call.metadata["x-request-id"] != "request-of-Hello"
    # With a caller's digest beside it, the core would take it for that caller's own.
    assert "hydrasms-key-digest" not in call.metadata
    call.accept()
    await within_bounds(sending)


@pytest.mark.parametrize("key", [None, "", "k", " not one "])
async def test_an_idempotency_key_goes_as_it_came(callers, forwarding, key):
    sending = callers.send("Hello", key=key)
    call = await forwarding.call(0)
    (item,) = call.request.items
    assert (item.idempotency_key if item.HasField("idempotency_key") else None) == key
    call.accept()
    await within_bounds(sending)


async def test_sends_of_one_moment_go_together_and_each_gets_its_own_answer(callers, forwarding):
    tasks = [callers.send(f"text {number}") for number in range(50)]
    call = await forwarding.call(0)
    assert len(call.request.items) == 50
    call.accept()
    assert [await content_of(task) for task in tasks] == [f"text {number}" for number in range(50)]
    assert len(forwarding.calls) == 1


async def test_what_comes_while_two_calls_are_under_way_gathers_until_one_is_answered(callers, forwarding):
    first, second = await callers.flying("first", "second")
    rest = [callers.send(f"rest {number}") for number in range(10)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(forwarding.calls) == 2
    forwarding.calls[1].accept()
    call = await forwarding.call(2)
    assert call.contents == [f"rest {number}" for number in range(10)]
    call.accept()
    forwarding.calls[0].accept()
    assert [await content_of(task) for task in (first, second)] == ["first", "second"]
    await within_bounds(asyncio.gather(*rest))


async def sending_beside(callers, forwarding, number):
    """Have ten sends under way in one call, begin so many more and return all; the loop has had its turns."""
    first = [callers.send(f"first {each}") for each in range(10)]
    await forwarding.call(0)
    rest = [callers.send(f"rest {each}") for each in range(number)]
    for _ in range(5):
        await asyncio.sleep(0)
    return [*first, *rest]


async def accept_all(forwarding, sendings):
    forwarding.holding = False
    for call in forwarding.calls:
        if not call.outcome.done():
            call.accept()
    await within_bounds(asyncio.gather(*sendings))


async def test_as_many_as_a_call_carries_go_beside_it_at_once(forwarding):
    callers = Callers(forwarding, patience_s=60.0)
    sendings = await sending_beside(callers, forwarding, 10)
    assert [len(call.request.items) for call in forwarding.calls] == [10, 10]
    await accept_all(forwarding, sendings)


async def test_fewer_than_a_call_carries_wait_for_its_answer(forwarding):
    callers = Callers(forwarding, patience_s=60.0)
    sendings = await sending_beside(callers, forwarding, 9)
    assert len(forwarding.calls) == 1
    forwarding.calls[0].accept()
    assert len((await forwarding.call(1)).request.items) == 9
    await accept_all(forwarding, sendings)


async def test_fewer_than_a_call_carries_go_beside_it_when_it_takes_long(forwarding):
    callers = Callers(forwarding, patience_s=0.05)
    sendings = await sending_beside(callers, forwarding, 1)
    assert len(forwarding.calls) == 1
    assert len((await forwarding.call(1)).request.items) == 1
    # Once it has taken long, so does what comes later.
    forwarding.calls[1].accept()
    sendings.append(callers.send("later"))
    assert (await forwarding.call(2)).contents == ["later"]
    await accept_all(forwarding, sendings)


async def test_what_waits_is_under_way_before_the_answered_go_on(callers, forwarding):
    first, second = await callers.flying("first", "second")
    rest = callers.send("rest")
    await asyncio.sleep(0)
    calls_by_then = []
    first.add_done_callback(lambda _: calls_by_then.append(len(forwarding.calls)))
    forwarding.calls[0].accept()
    assert await content_of(first) == "first"
    assert calls_by_then == [3]
    forwarding.calls[1].accept()
    (await forwarding.call(2)).accept()
    await within_bounds(asyncio.gather(second, rest))


async def storm(callers):
    """Send 500 texts from 50 callers, each one after the other."""

    async def caller(number):
        for turn in range(10):
            # Not all in step, or all would go together every time.
            for _ in range(number % 7):
                await asyncio.sleep(0)
            assert await content_of(callers.send(f"{number}-{turn}")) == f"{number}-{turn}"

    await within_bounds(asyncio.gather(*(caller(number) for number in range(50))))


async def test_under_load_two_calls_are_under_way_and_never_more():
    forwarding = FakeForwarding(holding=False)
    await storm(Callers(forwarding))
    assert forwarding.most_under_way == 2
    assert len(forwarding.calls) < 100
    assert set(forwarding.times_carried().values()) == {1}


async def test_control_without_the_limit_there_are_more():
    forwarding = FakeForwarding(holding=False)
    callers = Callers(forwarding, max_in_flight=50, max_items=1)
    await storm(callers)
    assert forwarding.most_under_way > 2


async def test_a_call_carries_so_many_sends_at_most(forwarding):
    callers = Callers(forwarding, max_items=10)
    await callers.flying("first", "second")
    rest = [callers.send(f"rest {number}") for number in range(25)]
    for number in range(5):
        (await forwarding.call(number)).accept()
    await within_bounds(asyncio.gather(*rest))
    assert [len(call.request.items) for call in forwarding.calls] == [1, 1, 10, 10, 5]


async def test_a_call_is_so_large_at_most_but_carries_one_send_however_large(forwarding):
    callers = Callers(forwarding, max_bytes=10_000)
    await callers.flying("first", "second")
    small = [callers.send(f"{number} " + "x" * 3_000) for number in range(4)]
    large = callers.send("ü" * 20_000)
    for number in range(5):
        (await forwarding.call(number)).accept()
    await within_bounds(asyncio.gather(large, *small))
    assert [len(call.request.items) for call in forwarding.calls] == [1, 1, 3, 1, 1]
    assert all(call.request.ByteSize() < 10_000 for call in forwarding.calls[:4])


async def test_past_the_bound_a_send_is_refused_at_once(forwarding):
    callers = Callers(forwarding, max_waiting=3)
    await callers.flying("first", "second")
    waiting = [callers.send(f"waiting {number}") for number in range(3)]
    error = await refusal_of(callers.send("one more"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert (from_core(error).status, from_core(error).retry_after_s) == (503, 1)
    # Who leaves makes room.
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    taken = callers.send("taken")
    for number in range(3):
        (await forwarding.call(number)).accept()
    await within_bounds(asyncio.gather(taken, *waiting[1:]))
    assert "one more" not in forwarding.times_carried()


# ---- what comes of each ----------------------------------------------------------------------------------------

REFUSALS = [
    UnknownApiKey("This API key is unknown."),
    InvalidRecipient("That is no number.", field="recipient"),
    InsufficientCredits(2, 3),
    IdempotencyMismatch(),
    Overloaded(),
    InternalError(),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
async def test_a_refusal_is_raised_as_the_stub_of_a_single_call_raises_it(callers, forwarding, refusal):
    neighbour, sending = callers.send("neighbour"), callers.send("Hello", key="k")
    call = await forwarding.call(0)
    call.answer([accepted(call.request.items[0]), refused(refusal)])
    error = await refusal_of(sending)
    assert await content_of(neighbour) == "neighbour"
    status = to_status(refusal)
    assert (error.code().value[0], error.details()) == (status.code, status.message)
    # Which also proves that code and words agree with the details.
    assert rpc_status.from_call(error) == status  # type: ignore[arg-type]
    assert from_core(error).reason == refusal.reason
    # A refusal is an answer, also one that passes: it is the caller's to try again.
    assert len(forwarding.calls) == 1


async def test_a_status_that_grpc_does_not_know_is_no_end_of_anything(callers, forwarding):
    sending = callers.send("Hello")
    call = await forwarding.call(0)
    call.answer([ForwardedSendResult(refused=status_pb2.Status(code=99, message="?"))])
    assert (await refusal_of(sending)).code() is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(lambda items: [], id="none"),
        pytest.param(lambda items: [accepted(items[0])], id="too few"),
        pytest.param(lambda items: [accepted(items[0])] * 3, id="too many"),
    ],
)
async def test_an_answer_with_another_number_of_results_is_nobodys(callers, forwarding, results):
    tasks = [callers.send("one"), callers.send("two", key="k")]
    call = await forwarding.call(0)
    with structlog.testing.capture_logs() as lines:
        call.answer(results(call.request.items))
        for task in tasks:
            assert from_core(await refusal_of(task)).status == 500
    assert [line["event"] for line in lines] == ["forwarding_failed"]
    following = callers.send("three")
    (await forwarding.call(1)).accept()
    assert await content_of(following) == "three"


async def test_a_fault_of_ours_on_the_way_there_leaves_nobody_waiting(callers, forwarding, monkeypatch):
    def broken(batch, now):
        raise ZeroDivisionError("a secret")

    with structlog.testing.capture_logs() as lines:
        monkeypatch.setattr(coalescing, "_packed", broken)
        shown = from_core(await refusal_of(callers.send("one", key="k")))
        monkeypatch.undo()
    assert (shown.status, "secret" in shown.message) == (500, False)
    assert [line["event"] for line in lines] == ["forwarding_failed"]
    following = callers.send("two")
    (await forwarding.call(0)).accept()
    assert await content_of(following) == "two"


async def test_a_result_that_holds_nothing_is_an_internal_error(callers, forwarding):
    tasks = [callers.send("one"), callers.send("two")]
    call = await forwarding.call(0)
    call.answer([ForwardedSendResult(), accepted(call.request.items[1])])
    assert from_core(await refusal_of(tasks[0])).status == 500
    assert await content_of(tasks[1]) == "two"


async def test_calls_and_sends_are_counted(callers, forwarding):
    tasks = [callers.send("one"), callers.send("two")]
    (await forwarding.call(0)).accept()
    await within_bounds(asyncio.gather(*tasks))
    failing = callers.send("three")
    (await forwarding.call(1)).fail(grpc.StatusCode.UNAVAILABLE)
    await refusal_of(failing)
    text = callers.metrics.render().decode()
    assert 'hydrasms_forwarded_batches_total{code="OK"} 1.0' in text
    assert 'hydrasms_forwarded_batches_total{code="UNAVAILABLE"} 1.0' in text
    assert "hydrasms_forwarded_sends_total 3.0" in text


# ---- deadlines, and callers that leave -------------------------------------------------------------------------


async def test_a_send_that_waits_too_long_is_answered_within_its_deadline_and_never_goes(callers, forwarding):
    first, second = await callers.flying("first", "second")
    late, patient = callers.send("late", timeout=0.05), callers.send("patient")
    error = await refusal_of(late)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (from_core(error).status, from_core(error).retry_after_s) == (504, 1)
    for number in range(3):
        (await forwarding.call(number)).accept()
    await within_bounds(asyncio.gather(first, second, patient))
    assert "late" not in forwarding.times_carried()


async def test_a_send_whose_call_hangs_is_answered_within_its_deadline_and_its_neighbours_in_theirs(
    callers, forwarding
):
    short, long = callers.send("short", timeout=0.05), callers.send("long", key="k", timeout=10.0)
    call = await forwarding.call(0)
    assert 9.0 < call.timeout <= 10.0
    short_ms, long_ms = (item.timeout_ms for item in call.request.items)
    assert 0 < short_ms <= 50
    assert 9_000 < long_ms <= 10_000
    assert (await refusal_of(short)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not long.done()
    call.accept()
    assert await content_of(long) == "long"


async def test_what_is_left_of_a_deadline_is_told_when_the_call_is_made(callers, forwarding):
    await callers.flying("first", "second")
    waiting = callers.send("waiting", timeout=60.0)
    await asyncio.wait([callers.send("late", timeout=0.05)])
    forwarding.calls[0].accept()
    call = await forwarding.call(2)
    assert call.request.items[0].timeout_ms <= 59_950
    assert call.timeout <= 59.95
    call.accept()
    await within_bounds(waiting)


async def test_a_caller_that_leaves_while_it_waits_takes_its_send_back(callers, forwarding):
    first, second = await callers.flying("first", "second")
    leaving, staying = callers.send("leaving"), callers.send("staying")
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_bounds(leaving)
    for number in range(3):
        (await forwarding.call(number)).accept()
    await within_bounds(asyncio.gather(first, second, staying))
    assert "leaving" not in forwarding.times_carried()


async def test_a_caller_that_leaves_once_its_send_is_under_way_changes_nothing_for_the_others(
    callers, forwarding
):
    leaving, staying = callers.send("leaving", key="k"), callers.send("staying")
    call = await forwarding.call(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    call.accept()
    assert await content_of(staying) == "staying"
    assert leaving.cancelled()


async def test_nobody_left_means_no_call(callers, forwarding):
    first, second = await callers.flying("first", "second")
    leaving = callers.send("leaving")
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    for number in range(2):
        forwarding.calls[number].accept()
    await within_bounds(asyncio.gather(first, second))
    assert len(forwarding.calls) == 2


# ---- a core that goes away -------------------------------------------------------------------------------------


async def lose_an_answer(callers, forwarding, code=grpc.StatusCode.UNAVAILABLE):
    """Have a call with a keyed and an unkeyed send end with a status, and accept all that comes then."""
    unkeyed, keyed = callers.send("unkeyed"), callers.send("keyed", key="k")
    (await forwarding.call(0)).fail(code)
    forwarding.holding = False
    await asyncio.wait([unkeyed, keyed], timeout=10)
    return unkeyed, keyed


def assert_no_message_could_be_doubled(forwarding):
    """No send without a key went twice: nobody knows what became of it the first time."""
    keyless = [
        item.content for call in forwarding.calls for item in call.request.items if not item.idempotency_key
    ]
    assert len(keyless) == len(set(keyless))


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED"])
async def test_where_the_answer_is_lost_a_keyed_send_goes_again_and_one_without_a_key_is_refused(
    callers, forwarding, code
):
    unkeyed, keyed = await lose_an_answer(callers, forwarding, grpc.StatusCode[code])
    assert await content_of(keyed) == "keyed"
    error = await refusal_of(unkeyed)
    assert error.code() is grpc.StatusCode[code]
    assert (from_core(error).status, from_core(error).reason) == (503, "UNAVAILABLE")
    assert_no_message_could_be_doubled(forwarding)
    assert forwarding.times_carried() == {"keyed": 2, "unkeyed": 1}


class SendsEverythingAgain(Coalescer):
    """The control: lets every send go again, keyed or not."""

    def _go_again_or_fail(self, carried, error):
        again = [sent for sent in carried if not sent.answer.done()]
        self._resting.update(again)
        self._wake(again)


async def test_control_a_coalescer_that_sends_everything_again_is_caught(forwarding):
    unkeyed, _ = await lose_an_answer(Callers(forwarding, SendsEverythingAgain), forwarding)
    assert await content_of(unkeyed) == "unkeyed"
    with pytest.raises(AssertionError):
        assert_no_message_could_be_doubled(forwarding)


@pytest.mark.parametrize(
    "code",
    ["DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNIMPLEMENTED"],
)
async def test_other_ends_of_a_call_are_the_end_of_all_it_carried(callers, forwarding, code):
    for sending in await lose_an_answer(callers, forwarding, grpc.StatusCode[code]):
        assert (await refusal_of(sending)).code() is grpc.StatusCode[code]
    assert len(forwarding.calls) == 1


async def test_a_keyed_send_goes_again_until_its_deadline_and_is_then_told_why(callers, forwarding):
    sending = callers.send("keyed", key="k", timeout=0.3)
    number = 0
    while not sending.done():
        if len(forwarding.calls) > number:
            forwarding.calls[number].fail(grpc.StatusCode.UNAVAILABLE)
            number += 1
        await asyncio.sleep(0)
    error = await refusal_of(sending)
    # Not that it took too long: that it could not be done.
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert number > 3
    left_ms = [call.request.items[0].timeout_ms for call in forwarding.calls]
    assert left_ms == sorted(left_ms, reverse=True)
    assert 0 < left_ms[-1] < left_ms[0] <= 300


async def test_sends_that_rest_count_as_waiting_and_leave_when_their_callers_do(forwarding):
    callers = Callers(forwarding, max_waiting=2, first_pause_s=60.0, max_pause_s=60.0)
    resting = [callers.send(f"keyed {number}", key=str(number)) for number in range(2)]
    (await forwarding.call(0)).fail(grpc.StatusCode.UNAVAILABLE)
    await eventually(lambda: forwarding.under_way == 0)
    await asyncio.sleep(0)
    assert (await refusal_of(callers.send("one more"))).code() is grpc.StatusCode.UNAVAILABLE
    resting[0].cancel()
    await asyncio.wait(resting[:1])
    following = callers.send("following")
    (await forwarding.call(1)).accept()
    assert await content_of(following) == "following"
    resting[1].cancel()
    await asyncio.wait(resting)


async def test_a_channel_that_is_closed_under_a_call_leaves_nobody_waiting(callers, forwarding):
    tasks = [callers.send("unkeyed"), callers.send("keyed", key="k")]
    (await forwarding.call(0)).outcome.cancel()
    for task in tasks:
        assert from_core(await refusal_of(task)).status == 503
    following = callers.send("following")
    (await forwarding.call(1)).accept()
    assert await content_of(following) == "following"


async def test_a_real_channel_that_is_closed_under_a_call_answers_as_unavailable():
    async with edge_over_a_socket() as edge:
        entered = asyncio.Event()

        async def hang(context):
            entered.set()
            await asyncio.Event().wait()

        edge.core.instead = hang
        sending = asyncio.create_task(edge.send())
        await within_bounds(entered.wait())
    reply = await within_bounds(sending)
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "UNAVAILABLE", "1")


async def test_calls_that_are_stuck_do_not_hold_up_those_behind_them(forwarding):
    callers = Callers(forwarding, overdue_after_s=0.05)
    stuck = await callers.flying("stuck 1", "stuck 2")
    behind = callers.send("behind")
    await asyncio.sleep(0)
    assert len(forwarding.calls) == 2
    (await forwarding.call(2)).accept()
    assert await content_of(behind) == "behind"
    # The stuck ones were not given up.
    for call in forwarding.calls[:2]:
        call.accept()
    assert [await content_of(each) for each in stuck] == ["stuck 1", "stuck 2"]


async def test_control_with_more_patience_they_do(forwarding):
    callers = Callers(forwarding, overdue_after_s=60.0)
    await callers.flying("stuck 1", "stuck 2")
    behind = callers.send("behind", timeout=0.2)
    assert (await refusal_of(behind)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(forwarding.calls) == 2


async def test_of_stuck_calls_there_are_so_many_at_most(forwarding):
    callers = Callers(forwarding, overdue_after_s=0.001, max_calls=5)
    stuck = await callers.flying(*(f"stuck {number}" for number in range(5)))
    waiting = callers.send("waiting", timeout=0.2)
    assert (await refusal_of(waiting)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(forwarding.calls) == 5
    for call in forwarding.calls:
        call.accept()
    await within_bounds(asyncio.gather(*stuck))


class Unreliable(FakeForwarding):
    """Carries calls out or not, and answers them or not, at random."""

    def __init__(self, seed):
        super().__init__()
        self._dice = random.Random(seed)
        self.stored = []

    async def ForwardSends(self, request, *, timeout, metadata):
        for _ in range(self._dice.randrange(4)):
            await asyncio.sleep(0)
        if self._dice.random() < 0.8:
            known = {item.idempotency_key for item in self.stored if item.idempotency_key}
            self.stored += [item for item in request.items if item.idempotency_key not in known]
            if self._dice.random() < 0.8:
                return ForwardSendsResponse(results=[accepted(item) for item in request.items])
        raise AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "gone")


@pytest.mark.parametrize("coalescer", [Coalescer, SendsEverythingAgain])
async def test_whatever_a_core_loses_nothing_acknowledged_is_missing_and_nothing_is_there_twice(coalescer):
    doubled = 0
    for seed in range(20):
        core = Unreliable(seed)
        callers = Callers(core, coalescer, max_items=5, **QUICK)
        tasks = {
            f"{number}": callers.send(f"{number}", key=f"k-{number}" if number % 2 else None)
            for number in range(40)
        }
        await within_bounds(asyncio.wait(tasks.values()))
        stored = [item.content for item in core.stored]
        acknowledged = {content for content, task in tasks.items() if task.exception() is None}
        assert acknowledged <= set(stored) <= tasks.keys()
        # With a key everything comes through in the end.
        assert {content for content in tasks if int(content) % 2} <= acknowledged
        doubled += len(stored) - len(set(stored))
    # The control shows that the core loses enough for a careless coalescer to be caught.
    assert (doubled > 0) == (coalescer is SendsEverythingAgain)


# ---- where sends gather, and where not -------------------------------------------------------------------------


async def test_an_edge_before_a_core_in_another_process_gathers_sends():
    async with edge_over_a_socket() as edge:
        for reply in await asyncio.gather(*(edge.send() for _ in range(20))):
            assert reply.status == 200
        assert len(edge.core.calls) == 20
        assert b"hydrasms_forwarded_sends_total 20.0" in edge.metrics.render()


async def test_an_edge_gathers_none_where_it_is_told_not_to_or_its_core_is_in_its_own_process():
    async with edge_over_a_socket(coalesce=False) as edge:
        assert (await edge.send()).status == 200
        assert b"hydrasms_forwarded_sends" not in edge.metrics.render()
    edge = make_edge()
    assert (await edge.send()).status == 200
    assert b"hydrasms_forwarded_sends" not in edge.metrics.render()


async def test_listing_goes_by_itself():
    async with edge_over_a_socket() as edge:
        assert (await edge.call("GET", "/api/messages", key=KEY)).status == 404
        assert b"hydrasms_forwarded_sends_total 0.0" in edge.metrics.render()
