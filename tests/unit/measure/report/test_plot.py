import itertools

import pytest

from deferfs.measure.report import plot
from deferfs.measure.stats.histogram import fold


def test_an_axis_of_latencies_has_whole_decades() -> None:
    axis = plot.log_axis([2e6, 3e9])
    assert [tick.text for tick in axis.ticks] == ["1.00 ms", "10.0 ms", "100 ms", "1.00 s", "10.0 s"]
    assert axis.at(1e6) == 0 and axis.at(1e10) == 100
    assert axis.at(1e8) == pytest.approx(50)


def test_the_smallest_bar_can_be_seen() -> None:
    axis = plot.bar_axis([1e6, 1e7])
    assert axis.at(1e6) > 0


def test_a_ratio_and_its_inverse_are_equally_far_from_the_middle() -> None:
    place, ticks = plot.ratio_axis([0.5, 4.0])
    assert place(1.0) == 50
    assert place(4.0) - 50 == pytest.approx(50 - place(0.25))
    assert [tick.text for tick in ticks if tick.at == 50] == ["1x"]
    assert all(0 <= tick.at <= 100 for tick in ticks)


def test_an_astray_ratio_does_not_squeeze_the_others() -> None:
    place, _ = plot.ratio_axis([1e9])
    assert place(1e9) == 100
    assert place(10.0) > 60


def test_all_sides_of_a_distribution_share_their_axes() -> None:
    found = plot.distributions({"a": [(1, fold([10**6] * 50))], "b": [(1, fold([10**9] * 50)), (2, fold([]))], "c": []})
    assert set(found) == {"a", "b"}
    assert found["a"].y_ticks == found["b"].y_ticks
    assert found["a"].pooled.end_y > found["b"].pooled.end_y
    assert len(found["b"].pairs) == 1


def test_labels_do_not_lie_on_each_other_and_stay_in_the_plot() -> None:
    (drawn,) = plot.distributions({"a": [(pair, fold([10**6] * 50)) for pair in range(1, 11)]}).values()
    places = sorted(curve.label_y for curve in drawn.pairs)
    assert all(after - before >= plot.LABEL_GAP - 1e-6 for before, after in itertools.pairwise(places))
    assert places[-1] <= plot.HEIGHT - plot.BOTTOM


def test_without_samples_there_is_no_plot() -> None:
    assert plot.distributions({"a": [(1, fold([]))]}) == {}
