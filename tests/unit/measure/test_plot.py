import itertools

import pytest

from deferfs.measure import plot
from deferfs.measure.histogram import EMPTY, fold
from deferfs.measure.statistics import RatioSummary


def test_the_maximum_lies_at_the_last_nine() -> None:
    histogram = fold(range(1000, 2000))
    drawn = plot.distribution("stat", {"inline": histogram}, [("inline", histogram)])
    assert drawn is not None
    (curve,) = drawn.pooled
    assert curve.end_x == pytest.approx(plot.WIDTH - plot.RIGHT)
    assert curve.label == "2.00 us"
    assert [tick.text for tick in drawn.x_ticks] == ["0", "50", "90", "99", "99.9"]
    assert all(plot.TOP <= tick.at <= plot.HEIGHT - plot.BOTTOM for tick in drawn.y_ticks)


def test_labels_do_not_lie_on_each_other() -> None:
    one, other = fold([1000, 5000]), fold([1000, 5001])
    drawn = plot.distribution("stat", {"a": one, "b": other, "c": one}, [])
    assert drawn is not None
    heights = [curve.label_y for curve in drawn.pooled]
    assert all(below - above >= plot.LABEL_GAP for above, below in itertools.pairwise(heights))


def test_nothing_to_draw() -> None:
    assert plot.distribution("stat", {"inline": EMPTY}, []) is None
    assert plot.forest({"stat": {}}) is None


def test_equal_lies_in_the_middle_and_verdicts_need_every_pair() -> None:
    drawn = plot.forest(
        {
            "stat": {
                "p50": RatioSummary([1.2, 3], 1.9, 1.2, 3),
                "p99": RatioSummary([0.9, 3], 1.6, 0.9, 3),
                "max": RatioSummary([0.5, 0.6], 0.55, 0.5, 0.6),
            }
        }
    )
    assert drawn is not None
    assert [row.verdict for row in drawn.rows] == ["faster", "even", "slower"]
    assert [row.group for row in drawn.rows] == ["stat", "", ""]
    middle = (plot.FOREST_LEFT + plot.FOREST_WIDTH - plot.FOREST_RIGHT) / 2
    assert drawn.one == pytest.approx(middle)
    assert all(row.low <= row.middle <= row.high for row in drawn.rows)
    ticks = sorted(tick.at for tick in drawn.ticks)
    assert all(b - a >= plot.TICK_GAP for a, b in itertools.pairwise(ticks))
