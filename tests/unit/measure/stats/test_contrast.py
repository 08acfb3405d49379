from pathlib import Path

import msgspec

from deferfs.measure.stats.contrast import contrast, render_contrast
from tests.unit.measure.fakes import Fake, HeavyLoad, report


def test_two_runs_are_compared_side_by_side(tmp_path: Path) -> None:
    before = report(tmp_path, Fake(), pairs=8)
    after = report(tmp_path, Fake(slower={"inline": 3.0, "deferred": 2.0}), pairs=8)
    rows = {(row.side, row.measure.series, row.measure.statistic): row for row in contrast(before, after, {}).rows}
    assert len(rows) == 16
    slower, same = rows["deferred", "needs memory", "p99"], rows["inline", "needs memory", "p99"]
    assert slower.verdict == "A faster"
    assert slower.ratio is not None and 0.4 < slower.ratio.middle < 0.6
    assert same.verdict == "no difference"
    text = render_contrast(contrast(before, after, {}))
    assert "A faster" in text and max(map(len, text.splitlines())) < 80


def test_another_machine_and_what_only_one_has_are_told(tmp_path: Path) -> None:
    before = report(tmp_path, pairs=1)
    machine = msgspec.structs.replace(before.machine, kernel="1.0")
    after = msgspec.structs.replace(report(tmp_path, Fake(name="other"), pairs=1), machine=machine)
    found = contrast(before, after, {})
    assert found.rows == []
    assert found.notes[0] == f"not the same kernel: {before.machine.kernel} and 1.0"
    assert found.notes[1:] == ["only in A: fake on disk none", "only in B: other on disk none"]


def test_too_few_passes_and_a_busy_machine_give_no_verdict(tmp_path: Path) -> None:
    few = report(tmp_path, pairs=2)
    assert {row.verdict for row in contrast(few, few, {}).rows} == {"not enough samples"}
    busy = report(tmp_path, load=HeavyLoad)
    assert {row.verdict for row in contrast(busy, report(tmp_path), {}).rows} == {"machine too busy"}


def test_a_parameter_that_came_later_is_taken_at_its_default(tmp_path: Path) -> None:
    """What an older version measured is what the default gives; anything else is another case."""
    after = report(tmp_path, pairs=1)
    (result,) = after.results
    fewer = {key: value for key, value in result.parameters.items() if key != "inodes"}
    before = msgspec.structs.replace(after, results=[msgspec.structs.replace(result, parameters=fewer)])
    found = contrast(before, after, {"fake": result.parameters})
    assert found.rows
    assert found.notes == [f"A is of a version without inodes, which is taken to be {result.parameters['inodes']}"]
    assert contrast(before, after, {"fake": {"inodes": -1}}).rows == []
    assert contrast(before, after, {}).rows == []
