"""Explorations as `deferfs crash explore` makes them: random runs, short sequences, and what becomes of a failure."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from deferfs.crash.ace import OPERATIONS, PERSISTENCE, WORKLOADS
from deferfs.crash.campaign import Summary, numbered, processes, run_campaign
from deferfs.crash.exploration import EVICT_MODES, Finding, Task, crash_of, judge_finding, run_task
from deferfs.crash.reproducer import crash_image, read_finding, replay, write_finding
from deferfs.crash.shrinking import shrink
from tests.examples import examples
from tests.property.debt_faults import FAULTS

pytestmark = pytest.mark.timeout(600)
FIXED_RUNS = examples(64)
FRESH_RUNS = 5
SAMPLE = examples(250)
"""Sequences of two and of three operations that the short run takes."""


def explore(task: Task, count: int) -> Summary:
    summary = run_campaign(numbered(task, count))
    assert summary.finding is None, f"{summary.finding}"
    assert summary.tasks == count
    return summary


@pytest.mark.compiled
@pytest.mark.parametrize("evict", EVICT_MODES)
def test_random_runs_with_fixed_seeds(evict: str) -> None:
    summary = explore(Task(0, evict=evict), FIXED_RUNS)
    assert summary.tally.states > 1000 * FIXED_RUNS
    words = " ".join(summary.tally.coverage)
    for wanted in ("commit and checkpoint", "log wraps", "inactivation", "a later state", "the last synced state"):
        assert wanted in words


def test_random_runs_with_fresh_seeds(pytestconfig: pytest.Config) -> None:
    """`deferfs crash explore --seed N --runs 5`, with the N that the header of the run prints. Not in the usual run: an
    unrelated change must not fail by what a new seed finds."""
    if not pytestconfig.option.explores_fresh_seeds:
        pytest.skip("explores seeds that nothing has explored yet; run with --fresh or --long")
    explore(Task(pytestconfig.getoption("--explore-seed")), FRESH_RUNS)


@pytest.mark.compiled
@pytest.mark.parametrize("block_size", [4096, 65536])
def test_larger_blocks(block_size: int) -> None:
    explore(Task(0, 30, block_size=block_size, torn=6), examples(2))


@pytest.mark.compiled
def test_single_operations() -> None:
    """seq-1, complete in the night."""
    count = WORKLOADS["seq-1"].count
    for number in random.Random(1).sample(range(count), examples(count)):
        assert run_task(Task(number, workload="seq-1")).finding is None


@pytest.mark.compiled
@pytest.mark.parametrize("workload", ["seq-2", "seq-3"])
def test_a_sample_of_longer_sequences(workload: str) -> None:
    dice = random.Random(1)
    for number in dice.sample(range(WORKLOADS[workload].count), SAMPLE):
        assert run_task(Task(number, workload=workload, torn=6)).finding is None


def test_the_counts_are_those_published() -> None:
    operations, placements = len(OPERATIONS), len(PERSISTENCE)
    last = operations * (placements - 1)
    assert [workload.count for workload in WORKLOADS.values()] == [
        last,
        operations * placements * last,
        (operations * placements) ** 2 * last,
    ]
    document = Path(__file__).parents[2].joinpath("docs", "crash-consistency.md").read_text()
    for name, workload in WORKLOADS.items():
        assert f"| {name} | {workload.count:,} |" in document


def test_all_sequences_are_different() -> None:
    workload = WORKLOADS["seq-2"]
    assert len({str(workload.actions(number)) for number in range(workload.count)}) == workload.count


@pytest.mark.compiled
def test_side_by_side_gives_what_serial_gives() -> None:
    """In whatever order the results come back."""
    serial = run_campaign(numbered(Task(3, 10), 3))
    with processes(2) as executor:
        assert run_campaign(numbered(Task(3, 10), 3), executor=executor, jobs=2) == serial
    with ThreadPoolExecutor(3) as threads:
        assert run_campaign(numbered(Task(3, 10), 3), executor=threads, jobs=3) == serial


def test_a_run_stops_when_its_time_is_over() -> None:
    left = iter([True, True, False])
    summary = run_campaign(numbered(Task(0, 5), None), go_on=lambda: next(left))
    assert summary.tasks == 3


@pytest.mark.compiled
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_all_pairs_of_operations() -> None:
    """seq-2, complete."""
    with processes(2) as executor:
        tasks = numbered(Task(0, workload="seq-2", torn=6), WORKLOADS["seq-2"].count)
        summary = run_campaign(tasks, executor=executor, jobs=2)
    assert summary.finding is None, f"{summary.finding}"
    assert summary.tasks == WORKLOADS["seq-2"].count


@pytest.mark.compiled
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", range(1000, 2000, 250))
def test_many_random_runs(first: int) -> None:
    explore(Task(first, 200), 250)


# --- failures ---


def a_finding(monkeypatch: pytest.MonkeyPatch, fault: str, task: Task) -> Finding:
    FAULTS[fault].plant(monkeypatch)
    summary = run_campaign(numbered(task, 40))
    assert summary.finding is not None, "the fault is not found"
    return summary.finding


def test_a_failure_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions, schedule and crash together; what is left still fails, and only with the fault."""
    finding = a_finding(monkeypatch, "the_commit_record_is_not_flushed", Task(2, 60))
    small = shrink(finding)
    assert len(small.actions) <= 4 < len(finding.actions)
    place = crash_of(small)
    assert place is not None and place.within is None
    assert judge_finding(small)[1] is not None
    monkeypatch.undo()
    assert judge_finding(small)[1] is None


def test_a_failure_shrinks_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = a_finding(monkeypatch, "the_commit_record_is_not_flushed", Task(2, 60))
    assert shrink(finding, lambda: False) == finding


def test_a_failure_in_a_recovery_is_a_place_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = a_finding(monkeypatch, "replay_is_not_flushed", Task(2, 60))
    place = crash_of(finding)
    assert place is not None and place.within is not None
    assert judge_finding(finding)[1] is not None
    image = crash_image(finding)
    assert image is not None


def test_a_failure_without_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volume and model differ at once: there is no image, but it replays."""
    finding = a_finding(monkeypatch, "fsync_only_flushes", Task(2, 60))
    assert finding.place is None
    assert crash_image(finding) is None
    assert judge_finding(finding)[1] is not None


def test_a_failure_as_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is written out with its image, read back the same, and runs by itself."""
    fault = "the_commit_record_is_not_flushed"
    finding = a_finding(monkeypatch, fault, Task(2, 30))
    program = write_finding(finding, tmp_path)
    assert read_finding(program) == finding
    image = program.with_suffix(".img")
    assert image.read_bytes() == crash_image(finding)
    reason, notes = replay(finding, image)
    assert reason is not None and not any("no longer" in note for note in notes)
    assert write_finding(finding, tmp_path) != program, "nothing is overwritten"
    monkeypatch.undo()
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "it does not fail any more\n", "")
    assert msgspec.to_builtins(finding)["place"] is not None
