import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.measure.stats.statistics import (
    BEYOND_MIN,
    PAIRS_MIN,
    Middle,
    RatioSummary,
    enough_samples,
    judge,
    ratio,
    student_t,
    summarize_ratios,
    summarize_unpaired,
)

TIMES = st.lists(st.tuples(st.floats(1e-3, 1e9), st.floats(1e-3, 1e9)), min_size=1, max_size=12)
MIDDLES: tuple[Middle, ...] = ("geometric mean", "median")


def summarize(pairs: list[tuple[float, float]], middle: Middle = "geometric mean", draws: int = 200) -> RatioSummary:
    summary = summarize_ratios([a for a, _ in pairs], [b for _, b in pairs], middle, draws=draws)
    assert summary is not None
    return summary


def test_ratios_are_taken_pair_by_pair() -> None:
    summary = summarize([(10, 5), (80, 10), (30, 30)])
    assert summary.pairs == [2, 8, 1]
    assert summary.middle == pytest.approx(16 ** (1 / 3))
    assert summary.low == pytest.approx(1) and summary.high == pytest.approx(8)


def test_one_pair_that_went_astray_does_not_move_the_median() -> None:
    pairs = [(2.0, 1.0)] * 9 + [(2e6, 1.0)]
    assert summarize(pairs, "median").middle == pytest.approx(2)
    assert summarize(pairs).middle > 5


@settings(max_examples=60, deadline=None)
@given(TIMES, st.sampled_from(MIDDLES))
def test_the_interval_holds_the_middle_and_lies_within_the_pairs(
    pairs: list[tuple[float, float]], middle: Middle
) -> None:
    summary = summarize(pairs, middle)
    near = 1 + 1e-9
    assert summary.low <= summary.middle * near and summary.middle <= summary.high * near
    assert min(summary.pairs) <= summary.low * near and summary.high <= max(summary.pairs) * near


@settings(max_examples=60, deadline=None)
@given(TIMES, st.sampled_from(MIDDLES))
def test_turned_round_the_ratio_is_turned_round(pairs: list[tuple[float, float]], middle: Middle) -> None:
    """The same draws, mirrored: no side is favoured, and the verdict names the same side."""
    one, other = summarize(pairs, middle), summarize([(b, a) for a, b in pairs], middle)
    assert one.middle * other.middle == pytest.approx(1)
    assert [one.low * other.high, one.high * other.low] == pytest.approx([1, 1])


@settings(max_examples=30, deadline=None)
@given(TIMES, st.floats(0.01, 100))
def test_the_unit_does_not_matter(pairs: list[tuple[float, float]], unit: float) -> None:
    one, other = summarize(pairs), summarize([(a * unit, b * unit) for a, b in pairs])
    assert (one.middle, one.low, one.high) == pytest.approx((other.middle, other.low, other.high))


def test_the_interval_comes_from_a_seed() -> None:
    pairs = [(1.0 + number, 2.0) for number in range(8)]
    assert summarize(pairs) == summarize(pairs)


def simulated(chance: random.Random, true: float, count: int, spread: float) -> list[tuple[float, float]]:
    """Pairs whose machine drifts from pair to pair, which must cancel out."""
    found = []
    for _ in range(count):
        drift = chance.lognormvariate(0, 1)
        found.append((true * drift * chance.lognormvariate(0, spread), drift * chance.lognormvariate(0, spread)))
    return found


@pytest.mark.parametrize("middle", MIDDLES)
@pytest.mark.parametrize(("count", "spread"), [(6, 0.1), (10, 0.3), (20, 1.0)])
def test_about_95_of_100_intervals_hold_the_true_ratio(middle: Middle, count: int, spread: float) -> None:
    """400 simulated runs from a seed. Were coverage 95 %, fewer than 91.5 % would come in 2 of 1,000 such samples."""
    chance, held, runs = random.Random(count), 0, 400
    for _ in range(runs):
        summary = summarize(simulated(chance, 2.0, count, spread), middle, draws=400)
        held += summary.low <= 2.0 <= summary.high
    assert 0.915 <= held / runs <= 0.995


def test_equal_sides_rarely_get_a_verdict() -> None:
    chance, found, runs = random.Random(5), 0, 400
    for _ in range(runs):
        summary = summarize(simulated(chance, 1.0, 10, 0.3), draws=400)
        found += judge(summary, 10)[0] == "faster"
    assert found / runs <= 0.085


def test_a_clear_difference_is_found_and_the_faster_side_told() -> None:
    chance = random.Random(6)
    pairs = simulated(chance, 2.0, 10, 0.2)
    assert judge(summarize(pairs), 10) == ("faster", 1)
    assert judge(summarize([(b, a) for a, b in pairs]), 10) == ("faster", -1)


def test_a_difference_that_is_sure_but_small_is_none() -> None:
    pairs = [(1.02 + number / 1000, 1.0) for number in range(10)]
    summary = summarize(pairs)
    assert summary.low > 1
    assert judge(summary, 10) == ("no difference", 0)


def test_few_pairs_give_no_verdict_however_clear_they_are() -> None:
    pairs = [(10.0, 1.0)] * (PAIRS_MIN - 1)
    assert judge(summarize(pairs), len(pairs)) == ("not enough samples", 0)
    assert judge(None, 0) == ("not enough samples", 0)
    assert judge(summarize([*pairs, (10.0, 1.0)]), PAIRS_MIN) == ("faster", 1)


@pytest.mark.parametrize(("percent", "count"), [(50, 20), (99, 1000), (99.9, 10_000), (1, 1000)])
def test_a_percentile_needs_samples_beyond_it(percent: float, count: int) -> None:
    assert enough_samples(count, percent)
    assert not enough_samples(count - BEYOND_MIN, percent)


def test_a_maximum_needs_one_sample() -> None:
    assert enough_samples(1, 100)
    assert not enough_samples(0, 100)


def test_student_t_is_that_of_the_tables() -> None:
    for freedom, quantile in ((5, 2.571), (9, 2.262), (19, 2.093), (1000, 1.962)):
        assert student_t(freedom) == pytest.approx(quantile, abs=0.005)


def test_nothing_divided_by_nothing_is_even() -> None:
    assert ratio(0, 0) == 1
    assert ratio(3, 0) == math.inf


def test_pairs_that_cannot_be_told_are_left_out() -> None:
    summary = summarize_ratios([3, 6, 0], [0, 2, 5])
    assert summary is not None
    assert summary.pairs == [3]
    assert summarize_ratios([3], [0]) is None
    assert summarize_ratios([], []) is None


def test_unequal_numbers_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        summarize_ratios([1, 2], [1])


def test_runs_that_did_not_take_turns_are_drawn_by_themselves() -> None:
    chance = random.Random(7)
    above = [2 * chance.lognormvariate(0, 0.1) for _ in range(10)]
    below = [chance.lognormvariate(0, 0.1) for _ in range(7)]
    summary = summarize_unpaired(above, below)
    assert summary is not None
    assert summary.pairs == []
    assert 1.5 < summary.low < 2 < summary.high < 2.6
    assert summarize_unpaired([0], [1]) is None
