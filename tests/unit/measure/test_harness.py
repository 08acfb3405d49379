import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.harness import Plan, run
from deferfs.measure.results import Report, decode_report, encode_report
from deferfs.measure.scenario import Loop, Side, Surroundings
from deferfs.measure.work.processes import WorkerError
from tests.unit.measure.fakes import SIDES, Fake, HeavyLoad, Parameters, StillLoad, conditions, report


def test_one_side_is_warmed_up_and_then_each_has_a_pass_of_each_loop_in_every_pair(tmp_path: Path) -> None:
    fake = Fake()
    found = report(tmp_path, fake, pairs=2)
    assert fake.log[0] == "prepared" and fake.log[-1] == "removed"
    assert [line for line in fake.log if " 0 " in line] == [fake.log[1]] == ["closed 0 deferred"]
    (result,) = found.results
    told = {(one.side, one.loop, one.pair) for one in result.passes}
    assert told == {(side.name, loop, pair) for side in SIDES for loop in ("closed", "open") for pair in (1, 2)}
    assert not any(one.pair == 0 for one in result.passes)


def test_the_order_of_the_sides_is_shuffled_by_the_seed(tmp_path: Path) -> None:
    orders = []
    for seed in (1, 1, 2):
        fake = Fake(loops=("open",))
        report(tmp_path, fake, pairs=8, seed=seed)
        orders.append(fake.log)
    assert orders[0] == orders[1] != orders[2]
    pairs = [tuple(line.split()[2] for line in orders[0][2:-1][start : start + 4]) for start in range(0, 32, 4)]
    assert len(set(pairs)) > 1
    assert all(sorted(pair) == sorted(side.name for side in SIDES) for pair in pairs)


@pytest.mark.parametrize(
    ("seconds", "least", "pairs"), [(None, 6, 10), (1000, 6, 10), (330, 6, 8), (10, 6, 6), (10, 1, 1), (130, 1, 3)]
)
def test_as_many_pairs_are_run_as_fit_into_the_time_and_no_fewer_than_are_needed(
    tmp_path: Path, seconds: float | None, least: int, pairs: int
) -> None:
    now, said = [0.0], list[str]()

    def pass_takes_ten_seconds(side: Side, loop: Loop, number: int) -> None:
        now[0] += 10

    fake = Fake(before=pass_takes_ten_seconds, loops=("open",))
    plan = Plan(fake, Parameters(), 10, seconds=seconds, pairs_min=least)
    found = run([plan], conditions(tmp_path, tell=said.append, clock=lambda: now[0]))
    (result,) = found.results
    assert {side.name: len(result.of_side(side.name)) for side in SIDES} == {side.name: pairs for side in SIDES}
    note = f"fake: {pairs} of 10 pairs of the open loop fitted into the time"
    assert found.notes == ([note] if pairs < 10 else [])
    assert any("about 3 min" in line if (seconds, least) == (10, 6) else "left" in line for line in said)
    verdicts = {comparison.verdict for comparison in result.comparisons}
    assert verdicts <= {"faster", "no difference"} if pairs >= 6 else verdicts == {"not enough samples"}


def test_missing_requirements_are_reported_at_once_and_the_rest_is_run(tmp_path: Path) -> None:
    fake = Fake(lacking={"ext4": "mkfs.ext4 is not installed", "floor": "no luck"})
    said: list[str] = []
    found = report(tmp_path, fake, pairs=1, tell=said.append)
    assert said[:2] == [
        "fake: cannot run deferfs, noatime: no luck",
        "fake: cannot run ext4: mkfs.ext4 is not installed",
    ]
    (result,) = found.results
    assert result.missing == {"ext4": "mkfs.ext4 is not installed", "floor": "no luck"}
    assert {one.side for one in result.passes} == {"inline", "deferred"}
    assert "fake: mkfs.ext4 is not installed: ext4: not run" in found.notes


def test_only_the_chosen_sides_have_passes(tmp_path: Path) -> None:
    fake = Fake()
    found = run([Plan(fake, Parameters(), 2, sides=frozenset({"inline", "floor"}))], conditions(tmp_path))
    (result,) = found.results
    assert {one.side for one in result.passes} == {"inline", "floor"} == {side.name for side in result.sides}
    assert not result.missing


def test_a_scenario_without_a_side_that_can_run_is_not_prepared(tmp_path: Path) -> None:
    fake = Fake(lacking={side.name: "not root" for side in SIDES})
    found = report(tmp_path, fake)
    assert fake.log == []
    assert found.results[0].passes == []
    assert len([note for note in found.notes if "not root" in note]) == 1


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (DeferfsError("mkfs.ext4: no space"), "mkfs.ext4: no space"),
        (OSError(errno.ENOSPC, "No space left on device", "/m/x"), "/m/x: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_side_that_fails_is_given_up_and_the_rest_goes_on(tmp_path: Path, problem: Exception, said: str) -> None:
    def fail(side: Side, loop: Loop, number: int) -> None:
        if side.name == "ext4" and number == 2:
            raise problem

    fake = Fake(before=fail, loops=("open",))
    found = report(tmp_path, fake, pairs=3)
    (result,) = found.results
    assert len(result.of_side("ext4")) == 1
    assert len(result.of_side("inline")) == len(result.of_side("deferred")) == 3
    assert found.notes == [f"fake: gave up on ext4: {said}"]


def test_a_preparation_that_fails_costs_only_its_own_scenario(tmp_path: Path) -> None:
    class Broken(Fake):
        @contextmanager
        def prepared(self, parameters: Any, surroundings: Surroundings) -> Iterator[Fake]:
            if surroundings.scratch.exists():
                raise DeferfsError("no space")
            yield self

    fine = Fake()
    found = run([Plan(Broken(name="broken"), Parameters()), Plan(fine, Parameters(), 1)], conditions(tmp_path))
    assert [bool(result.passes) for result in found.results] == [False, True]
    assert found.notes[0].startswith("broken: gave up on deferfs, inline") and found.notes[0].endswith("no space")


class Begins(Fake):
    """Makes its image beside that of another scenario. Steps go to a common log."""

    def __init__(self, name: str, log: list[str], problem: Exception | None = None) -> None:
        super().__init__(name=name, loops=("open",), before=lambda side, loop, number: log.append(f"{name} runs"))
        self._steps, self._problem = log, problem

    @contextmanager
    def prepared(self, parameters: Any, surroundings: Surroundings) -> Iterator[Fake]:
        self._steps.append(f"{self.name} begins")
        with super().prepared(parameters, surroundings):
            yield self
        self._steps.append(f"{self.name} is removed")

    def finish_preparing(self) -> None:
        self._steps.append(f"{self.name} is made")
        if self._problem is not None:
            raise self._problem


def test_two_scenarios_are_prepared_together_before_the_first_pass(tmp_path: Path) -> None:
    steps: list[str] = []
    plans = [Plan(Begins(name, steps), Parameters(), 1) for name in ("a", "b", "c")]
    assert [len(result.passes) for result in run(plans, conditions(tmp_path)).results] == [4, 4, 4]
    assert list(dict.fromkeys(steps)) == [
        *("b begins", "a begins", "a is made", "b is made", "a runs", "a is removed", "b runs", "b is removed"),
        *("c begins", "c is made", "c runs", "c is removed"),
    ]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_preparation_that_fails_beside_another_costs_only_its_own_scenario(tmp_path: Path, failing: int) -> None:
    steps: list[str] = []
    problems = [WorkerError("no space") if number == failing else None for number in range(2)]
    plans = [Plan(Begins("ab"[number], steps, problems[number]), Parameters(), 1) for number in range(2)]
    found = run(plans, conditions(tmp_path))
    assert [len(result.passes) for result in found.results] == [0 if number == failing else 4 for number in range(2)]
    assert {"a is removed", "b is removed"} <= set(steps)
    assert [note for note in found.notes if "gave up" in note and note.endswith("no space")]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_two_scenarios_are_prepared_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(Begins):
        def finish_preparing(self) -> None:
            raise KeyboardInterrupt

    steps: list[str] = []
    plans = [Plan(Interrupted("a", steps), Parameters(), 1), Plan(Begins("b", steps), Parameters(), 1)]
    found = run(plans, conditions(tmp_path))
    assert found.interrupted
    assert [result.scenario for result in found.results] == ["a"]
    assert steps == ["b begins", "a begins", "a is removed", "b is removed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [("closed", 0, "deferred"), ("closed", 2, "inline"), ("open", 1, "floor")])
def test_an_interrupt_gives_what_is_finished_and_leaves_nothing(tmp_path: Path, stop: tuple[str, int, str]) -> None:
    done = []

    def interrupt(side: Side, loop: Loop, number: int) -> None:
        if (loop, number, side.name) == stop:
            raise KeyboardInterrupt
        if number:
            done.append(side.name)

    fake, second = Fake(before=interrupt), Fake(name="second")
    found = run([Plan(fake, Parameters(), 2), Plan(second, Parameters())], conditions(tmp_path))
    assert found.interrupted
    assert fake.log[-1] == "removed"
    assert [result.scenario for result in found.results] == ["fake"]
    assert [one.side for one in found.results[0].passes] == done
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_in_the_scratch_directory(tmp_path: Path) -> None:
    fake = Fake()
    report(tmp_path, fake, pairs=1)
    assert fake.scratch is not None and fake.scratch.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_quiet_machine_gives_a_verdict(tmp_path: Path) -> None:
    found = report(tmp_path)
    first = found.results[0].comparisons[0]
    assert (first.verdict, first.faster) == ("faster", "deferred")
    assert first.ratio is not None and first.ratio.middle == pytest.approx(3, rel=0.1)
    assert not found.busy


def test_a_machine_that_others_use_gets_no_verdict(tmp_path: Path) -> None:
    found = report(tmp_path, load=HeavyLoad)
    assert {one.verdict for one in found.results[0].comparisons} == {"machine too busy"}
    assert found.busy
    assert any("other programs took up to 40% of the processors" in note for note in found.notes)


def test_company_in_one_pair_of_many_costs_that_pair_alone(tmp_path: Path) -> None:
    class Once(StillLoad):
        calls = 0

        def fraction(self, elapsed: float | None = None) -> float:
            Once.calls += 1
            return 0.5 if Once.calls == 9 else 0.0

    found = report(tmp_path, Fake(loops=("open",)), pairs=10, load=Once)
    first = found.results[0].comparisons[0]
    assert first.verdict == "faster"
    assert sum(one.foreign_cpu_fraction > 0 for one in found.results[0].passes) == 1
    assert not found.busy


def test_an_oom_kill_is_an_outcome_and_no_ratio(tmp_path: Path) -> None:
    found = report(tmp_path, Fake(killed=("inline",), loops=("open",)), pairs=6)
    first = found.results[0].comparisons[0]
    assert (first.ratio, first.pairs_unfinished, first.verdict) == (None, 6, "not enough samples")
    assert "fake, deferfs, inline: 6 of 6 passes ended in an OOM kill" in found.notes


def test_the_same_side_against_itself_shows_no_difference(tmp_path: Path) -> None:
    fake = Fake()
    found = report(tmp_path, fake, pairs=10, aa=True)
    (result,) = found.results
    assert {one.side for one in result.passes} == {"deferred"}
    assert len(result.of_side("deferred", "open")) == 20
    assert result.comparisons == []
    assert [one.of for one in result.aa] == [100] * 4
    assert min(one.no_difference for one in result.aa) >= 90


def test_the_report_survives_its_file(tmp_path: Path) -> None:
    found = report(tmp_path, pairs=2)
    assert decode_report(encode_report(found), "a.json") == found
    assert msgspec.json.decode(encode_report(found), type=Report) == found
