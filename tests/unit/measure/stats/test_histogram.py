import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.measure.stats.histogram import EMPTY, bin_ceiling, bin_floor, fold, merge

latencies = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("value", "floor", "ceiling"),
    [(0, 0, 0), (255, 255, 255), (256, 256, 257), (257, 256, 257), (1000, 1000, 1003)],
)
def test_bins_have_known_edges(value: int, floor: int, ceiling: int) -> None:
    assert bin_floor(value) == floor
    assert bin_ceiling(floor) == ceiling


@given(st.integers(0, 1 << 60))
def test_a_bin_is_never_wider_than_a_128th_of_its_values(value: int) -> None:
    floor = bin_floor(value)
    ceiling = bin_ceiling(floor)
    assert floor <= value <= ceiling
    assert bin_floor(ceiling) == floor
    assert bin_floor(ceiling + 1) == ceiling + 1
    assert (ceiling - floor) * 128 <= max(floor, 128)


@given(latencies)
def test_folding_keeps_count_sum_minimum_and_maximum_exactly(samples: list[int]) -> None:
    histogram = fold(samples)
    assert histogram.count == len(samples) == sum(histogram.bins.values())
    assert histogram.total_ns == sum(samples)
    assert histogram.min_ns == min(samples)
    assert histogram.max_ns == max(samples)
    assert list(histogram.bins) == sorted(histogram.bins)


@given(latencies, st.floats(0, 100))
def test_a_percentile_is_that_of_the_sorted_samples_within_a_bin(samples: list[int], percent: float) -> None:
    ordered = sorted(samples)
    rank = max(1, -(-len(samples) * percent // 100))
    exact = ordered[min(int(rank), len(samples)) - 1]
    found = fold(samples).percentile(percent)
    below = ordered[max(0, min(int(rank), len(samples)) - 2)]
    assert below <= found  # rounding of the rank may move it by one sample, never further
    assert found <= bin_ceiling(bin_floor(exact)) or found <= ordered[-1]


def test_percentiles_of_a_hundred_values() -> None:
    histogram = fold(range(1, 101))
    assert [histogram.percentile(p) for p in (0, 50, 99, 99.9, 100)] == [1, 50, 99, 100, 100]


def test_the_hundredth_percentile_is_the_exact_maximum() -> None:
    assert fold([1_000_001, 7]).percentile(100) == 1_000_001


def test_nothing_recorded() -> None:
    assert fold([]) == EMPTY
    assert EMPTY.percentile(50) == 0
    assert EMPTY.exceedance() == []


@given(latencies, latencies)
def test_merging_is_folding_everything(first: list[int], second: list[int]) -> None:
    assert merge([fold(first), EMPTY, fold(second)]) == fold(first + second)
    assert merge([]) == EMPTY


@given(latencies)
def test_the_distribution_falls_from_all_to_one_sample(samples: list[int]) -> None:
    points = fold(samples).exceedance()
    assert points[0] == (min(samples), 1.0)
    assert points[-1] == (max(samples), 1 / len(samples))
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
