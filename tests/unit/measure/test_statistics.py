import math

import pytest

from deferfs.measure.statistics import geometric_mean, ratio, summarize_ratios


def test_ratios_are_taken_pair_by_pair() -> None:
    summary = summarize_ratios([10, 80, 30], [5, 10, 30])
    assert summary is not None
    assert summary.pairs == [2, 8, 1]
    assert summary.geomean == pytest.approx(16 ** (1 / 3))
    assert (summary.low, summary.high) == (1, 8)


def test_a_ratio_and_its_inverse_cancel_out() -> None:
    summary = summarize_ratios([1, 4], [4, 1])
    assert summary is not None
    assert summary.geomean == pytest.approx(1)


def test_nothing_divided_by_nothing_is_even() -> None:
    assert ratio(0, 0) == 1
    assert ratio(3, 0) == math.inf


def test_pairs_that_cannot_be_told_are_left_out() -> None:
    summary = summarize_ratios([3, 6], [0, 2])
    assert summary is not None
    assert summary.pairs == [3]
    assert summarize_ratios([3], [0]) is None
    assert summarize_ratios([], []) is None


def test_unequal_numbers_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        summarize_ratios([1, 2], [1])


def test_geometric_mean_of_special_cases() -> None:
    assert math.isnan(geometric_mean([]))
    assert geometric_mean([0, 5]) == 0
    assert geometric_mean([3.0]) == pytest.approx(3)
