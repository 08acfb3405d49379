from pathlib import Path

import msgspec
import pytest

from deferfs.measure.churn import compare, observations, run_churn
from deferfs.measure.results import Report
from deferfs.measure.run import Conditions
from deferfs.measure.targets import DirectoryTarget
from deferfs.measure.tracing import ReclaimTrace
from deferfs.measure.workload import Work
from tests.unit.measure.reports import probe_result, report, run


def test_ratios_are_baseline_by_candidate_pair_by_pair() -> None:
    comparison = report().comparison
    summary = comparison.probes["create"]["max"]
    assert summary.pairs == pytest.approx([4, 2])
    assert summary.geomean == pytest.approx(8**0.5)
    assert comparison.total_seconds is not None
    assert comparison.total_seconds.pairs == [4, 2]
    assert comparison.control["create"]["p99"].pairs == [1, 1]


def test_pairs_are_matched_by_number_not_by_order() -> None:
    runs = report().runs
    assert compare(runs[::-1], "inline", "deferred") == compare(runs, "inline", "deferred")


def test_a_probe_that_could_not_keep_its_pace_is_told() -> None:
    slow = msgspec.structs.replace(run("inline", 1, 10), probes={"stat": probe_result(10, due=400)})
    assert observations([slow]) == ["inline: the stat probe kept only 25% of its pace"]
    assert observations([run("inline", 1, 10)]) == []


def test_company_on_the_machine_is_told() -> None:
    alone, crowded = run("inline", 1, 10), run("inline", 2, 10)
    crowded = msgspec.structs.replace(crowded, foreign_cpu_fraction=0.4)
    assert observations([alone, crowded]) == ["inline: other programs took up to 40% of the processors during a run"]


def test_a_backlog_that_was_not_drained_and_failures_are_told() -> None:
    good = run("deferred", 1, 10)
    drain = msgspec.structs.replace(good.drain, complete=False)
    failing = msgspec.structs.replace(good.probes["create"], failed=3, done=97)
    bad = msgspec.structs.replace(good, drain=drain, probes={"create": failing})
    assert observations([bad]) == [
        "deferred: 3 of 100 create operations failed",
        "deferred: in 1 runs the backlog was not drained in time",
    ]


def test_the_scenario_on_a_plain_directory(tmp_path: Path) -> None:
    """The whole way with real processes, without a memory limit: any filesystem will do."""
    target = DirectoryTarget(tmp_path)
    work = Work(rounds=2, seconds=0, tree_files=400, victims=32, seed=1, keep_links=False)
    said: list[str] = []
    try:
        with ReclaimTrace("unused", [tmp_path / "nothing"]) as trace:
            trace.problem = "not traced"
            found = run_churn(target, Conditions(work, None, 0, False), 1, trace, ["a note"], said.append)
    finally:
        target.close()
    assert [run.mode for run in found.runs] == ["as-mounted", "none"]
    assert found.settings.candidate == "none"
    assert all(one.workload.rounds == 2 for one in found.runs)
    assert set(found.comparison.probes) == {"create", "stat", "write", "fsync", "memory"}
    assert found.notes[0] == "a note"
    assert all(0 <= one.foreign_cpu_fraction <= 1 for one in found.runs)
    assert said[-1] == "pair 1 of 1: none"
    assert list(tmp_path.iterdir()) == []
    decoded = msgspec.json.decode(msgspec.json.encode(found), type=Report, strict=False)
    assert decoded == found
