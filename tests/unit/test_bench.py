"""What the benchmarks compute from what they measure."""

import asyncio
import contextlib

import pytest

from bench import dispatch, open_loop, overload, report
from bench.open_loop import Answers
from bench.sample import Sample, of_latencies, pairwise, percentile, slope, spread
from tests.support.waiting import eventually


def sample(rate: float) -> Sample:
    return Sample(count=round(rate), seconds=1.0, p50_ms=1.0, p99_ms=2.0)


def test_a_percentile_is_a_value_that_was_measured():
    ordered = [float(value) for value in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) == 0.0


def test_latencies_become_a_rate_of_things_not_of_calls():
    measured = of_latencies([0.002, 0.001, 0.003], 0.5, weight=100, cpu_s=0.3)
    assert (measured.count, measured.rate, measured.p50_ms) == (300, 600.0, 2.0)
    assert measured.cpu_us == pytest.approx(1_000)


def test_a_slope_is_that_of_the_line_through_the_points():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 5), (1, 5)]) == 0
    assert slope([(1, 5)]) == slope([(1, 5), (1, 6)]) == 0


def test_a_ratio_is_taken_round_by_round():
    assert pairwise([sample(10), sample(30)], [sample(20), sample(20)]) == [0.5, 1.5]
    assert spread([0.5, 1.5, 0.7]).median == 0.7
    with pytest.raises(ValueError, match="longer"):
        pairwise([sample(1)], [sample(1), sample(2)])


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.29, "MISSED"), (0.30, "met"), (0.44, "met"), (0.45, "aim met")]
)
def test_a_ratio_is_held_against_its_least_and_its_aim(value, verdict):
    assert report.Ratio("r", [value], at_least=0.30, aim=0.45).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(4.0, "met"), (4.1, "MISSED")])
def test_a_ratio_is_held_against_its_most(value, verdict):
    assert report.Ratio("r", [value], at_most=4).verdict == verdict


def test_a_table_shows_every_case_ratio_and_fact(tmp_path):
    found = report.Benchmark(
        "send",
        [report.Case("the case", [sample(100), sample(300), sample(200)])],
        [report.Ratio("the ratio", [0.2], at_least=0.3)],
        [report.Fact("the fact", 12.0, "MB", "a note")],
    )
    lines = [" ".join(line.split()) for line in report.table(found).splitlines()]
    assert "the case 200/s 100-300 1.00 2.00 0" in lines
    assert "the ratio 0.200 0.200-0.200 at least 0.3 MISSED" in lines
    assert "the fact 12 MB a note" in lines

    document = report.as_json([found], settings={"runs": 3}, folder=tmp_path)
    assert document["benchmarks"]["send"]["cases"][0]["median"] == 200
    assert document["benchmarks"]["send"]["ratios"][0]["verdict"] == "MISSED"


def test_what_a_carrier_took_meanwhile_is_what_was_accepted_less_what_more_waits():
    assert dispatch.Run(accepted=1_000, waiting_before=50, waiting_after=250, seconds=1.0).share == 0.8
    assert dispatch.Run(accepted=100, waiting_before=50, waiting_after=0, seconds=1.0).handed_on == 150
    assert dispatch.Run(accepted=0, waiting_before=0, waiting_after=0, seconds=1.0).share == 0.0


def answers(seconds: float, accepted=(), refused=()) -> Answers:
    return Answers(0.0, seconds, accepted=list(accepted), refused=list(refused))


def test_what_is_accepted_too_late_for_its_phase_does_not_count_for_it():
    assert overload.in_time(answers(10.0, [(0.0, 0.1), (9.9, 0.1), (9.9, 0.2)])) == 2


def test_it_is_normal_again_when_two_seconds_are_as_fast_as_before_and_nothing_is_refused():
    before = answers(1.0, [(0.5, 0.010)] * 100)
    slow, fast = 0.021, 0.020
    seconds = [slow, fast, slow, fast, fast, slow]
    after = answers(6.0, [(second + 0.5, latency) for second, latency in enumerate(seconds)])
    assert overload.normal_after(before, after) == 3.0
    after.refused.append((4.0, 0.0))
    assert overload.normal_after(before, after) == 6.0
    assert overload.normal_after(before, answers(3.0)) == 3.0


def test_a_phase_is_a_rate_or_a_number_at_once():
    assert open_loop.phase("1500.5:10") == (1500.5, 0, 10.0)
    assert open_loop.phase("closed-128:4") == (0.0, 128, 4.0)


def test_half_of_the_requests_of_a_load_have_an_idempotency_key_of_their_own():
    make = open_loop.requests(["the-key"], "word")
    raw = [make() for _ in range(4)]
    assert [b"idempotency-key: word-2\r\n" in raw[1], b"idempotency-key: word-4\r\n" in raw[3]] == [True] * 2
    assert sum(b"idempotency-key" in each for each in raw) == 2
    for each in raw:
        head, _, body = each.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        assert b"authorization: the-key" in head


async def test_a_load_goes_on_though_no_answer_comes_and_times_each_from_when_it_was_due():
    waiting, ended, released = [], [], asyncio.Event()

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"}"):
                waiting.append(writer)
                await released.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()
        ended.append(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        load = open_loop.OpenLoop(server.sockets[0].getsockname()[1], lambda: b"POST / HTTP/1.1\r\n\r\n{}")
        running = asyncio.create_task(load.run([open_loop.Phase(200.0, 0, 0.2)]))
        await eventually(lambda: len(waiting) == 40, what="40 requests that wait for no answer")
        released.set()
        [found] = await running
        load.close()
        await eventually(lambda: len(ended) == len(waiting), what="the end of all connections")
    assert (found.due, len(found.accepted), found.unanswered) == (40, 40, 0)
    due = [when for when, _ in found.accepted]
    assert sorted(due) == pytest.approx([number / 200 for number in range(40)], abs=1e-3)
    # All were answered at once, so that whoever was due first has waited longest.
    assert min(when + latency for when, latency in found.accepted) >= max(due)
