"""What the benchmarks compute from what they measure."""

import pytest

from bench import report
from bench.sample import Sample, of_latencies, pairwise, percentile, slope, spread


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
