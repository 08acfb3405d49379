"""The harness: runs scenarios, and compares their sides.

Requirements that this machine lacks are reported at once, and the rest is run. For each scenario: prepare once, two
scenarios at the same time; one warm-up pass, which is discarded; then pair after pair, each with one pass of every
side, in an order shuffled by a seed. The closed and the open loop have separate passes. An interrupt ends the
measurement at any point; finished passes become the report, and everything is removed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from deferfs.errors import DeferfsError
from deferfs.measure.host.cgroup import Hierarchy
from deferfs.measure.host.interrupts import uninterrupted
from deferfs.measure.host.load import FOREIGN_FRACTION, ForeignLoad, OwnProcesses
from deferfs.measure.host.machine import describe_machine
from deferfs.measure.host.sweep import sweep
from deferfs.measure.host.watcher import Watcher
from deferfs.measure.report.sentences import latency_sentences
from deferfs.measure.results import SCHEMA, Report, Resampled, Result
from deferfs.measure.scenario import Ask, Loop, Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.stats.comparing import compare_all, is_busy, resample
from deferfs.measure.stats.statistics import PAIRS_MIN
from deferfs.measure.work.processes import problem_words

SATURATED_FRACTION: Final = 0.9
"""A series that completed less than this fraction of the operations due could not keep the pace."""
PREPARED_TOGETHER: Final = 2
"""Plans whose images are made at the same time: one keeps a processor busy, or little more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One scenario to run with one set of parameters. `pairs` None: as many as in a short run of the scenario. `disk`:
    the preset of the slow disk. `loops` and `sides` (by name): which of the scenario's to run; None: all.
    `seconds`: from the start of the run on; no pair begins that would end later, once there are `pairs_min` (by
    default as many as a verdict needs). None: unlimited.
    """

    scenario: Scenario
    parameters: msgspec.Struct
    pairs: int | None = None
    disk: str = "none"
    loops: tuple[Loop, ...] | None = None
    sides: frozenset[str] | None = None
    seconds: float | None = None
    pairs_min: int = PAIRS_MIN


@dataclass(frozen=True, slots=True)
class Conditions:
    """The settings shared by all plans of a run. `scratch`: the parent of each plan's directory. `load`: makes the
    observer of the processors; `clock`: seconds, monotonic (both for tests)."""

    scratch: Path
    seed: int
    hierarchy: Hierarchy | None
    ask: Ask
    tell: Callable[[str], None]
    aa: bool = False
    notes: tuple[str, ...] = ()
    load: Callable[[OwnProcesses], ForeignLoad] = ForeignLoad
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Collected:
    """The results of one plan so far."""

    plan: Plan
    sides: list[Side]
    missing: dict[str, str]
    passes: list[Pass] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def able(self) -> list[Side]:
        """The sides that this machine can run."""
        return [side for side in self.sides if side.name not in self.missing]


def run(plans: Sequence[Plan], conditions: Conditions) -> Report:
    """Run all plans that this machine can run, until the user interrupts."""
    collected = [_ask_what_is_missing(plan, conditions) for plan in plans]
    interrupted, start = False, conditions.clock()
    begun: list[Collected] = []
    try:
        for at in range(0, len(collected), PREPARED_TOGETHER):
            _run_plans(collected[at : at + PREPARED_TOGETHER], conditions, start, begun)
    except KeyboardInterrupt:
        interrupted = True
        conditions.tell("interrupted: what is finished follows")
    return report_on(begun, conditions, interrupted=interrupted)


def report_on(collected: Sequence[Collected], conditions: Conditions, *, interrupted: bool = False) -> Report:
    """The report of the results so far."""
    results = [_result(one, conditions) for one in collected]
    return Report(
        schema=SCHEMA,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=describe_machine(conditions.scratch),
        busy=_refused(results, collected),
        results=results,
        notes=[*conditions.notes, *_notes(collected, results)],
        seed=conditions.seed,
        interrupted=interrupted,
    )


def _notes(collected: Sequence[Collected], results: Sequence[Result]) -> list[str]:
    """All observations, except those contained in a sentence."""
    said = {sentence for result in results for sentence in result.sentences}
    notes = dict.fromkeys(note for one in collected for note in observations(one))
    return [note for note in notes if note.partition(": ")[2] not in said]


def _ask_what_is_missing(plan: Plan, conditions: Conditions) -> Collected:
    sides = [side for side in plan.scenario.sides(plan.parameters) if plan.sides is None or side.name in plan.sides]
    missing: dict[str, str] = {}
    if conditions.aa:
        sides = sides_of_aa(sides)
    for side in sides:
        line = plan.scenario.missing(side, plan.parameters)
        if line:
            missing[side.name] = line
            conditions.tell(f"{plan.scenario.name}: cannot run {side.words}: {line}")
    return Collected(plan, sides, missing)


def sides_of_aa(sides: Sequence[Side]) -> list[Side]:
    """The one side of an A/A run: the first deferred one, or else the first."""
    return [side for side in sides if side.role == "deferred"][:1] or list(sides[:1])


def _run_plans(together: Sequence[Collected], conditions: Conditions, run_start: float, begun: list[Collected]) -> None:
    """Prepare some plans at the same time, then run one after the other; each is added to `begun` before."""
    begun.append(together[0])
    with contextlib.ExitStack() as stack:
        start = time.monotonic()
        preparations = [_Preparation(one, conditions) for one in together]
        # the first one last: it may make everything before it returns, while others go on by themselves
        for preparation in reversed(preparations):
            stack.callback(preparation.close)
            preparation.prepare()
        for preparation in preparations:
            preparation.finish()
        if any(one.able for one in together):
            conditions.tell(f"prepared in {time.monotonic() - start:.0f} s")
        for one, preparation in zip(together, preparations, strict=True):
            if one is not together[0]:
                begun.append(one)
            preparation.run(run_start)
            preparation.close()


class _Preparation:
    """The images of one plan in a scratch directory of its own, from `prepare` to `close`. Failures end the plan."""

    def __init__(self, one: Collected, conditions: Conditions) -> None:
        self._one, self._conditions = one, conditions
        self._stack = contextlib.ExitStack()
        self._prepared: Prepared | None = None
        self._own = OwnProcesses()

    def prepare(self) -> None:
        """Make the images, or begin to, where this machine can run a side of the plan."""
        if self._one.able:
            self._try(self._prepare)

    def finish(self) -> None:
        """Wait until everything is made."""
        self._try(getattr(self._prepared, "finish_preparing", lambda: None))

    def run(self, run_start: float) -> None:
        """All passes, unless it was given up on."""
        plan = self._one.plan
        end = math.inf if plan.seconds is None else run_start + plan.seconds
        prepared = self._prepared
        if prepared is not None and self._one.able:
            self._try(lambda: _Passes(self._one, self._conditions, prepared, self._own, end).do_all())

    def close(self) -> None:
        """Remove everything; also when `prepare` was interrupted, or has not been called."""
        self._try(self._stack.close)

    def _prepare(self) -> None:
        scenario, conditions = self._one.plan.scenario, self._conditions
        scratch = Path(tempfile.mkdtemp(prefix="deferfs-bench-", dir=conditions.scratch))
        self._stack.callback(_sweep, scratch, conditions)
        # before the scenario opens anything, which a process that is forked would hold open
        watcher = Watcher()
        self._stack.callback(watcher.close)
        self._own = OwnProcesses(watcher)
        surroundings = Surroundings(
            scratch=scratch,
            disk=self._one.plan.disk,
            seed=conditions.seed,
            hierarchy=conditions.hierarchy,
            ask=conditions.ask,
            tell=lambda text: conditions.tell(f"{scenario.name}: {text}"),
            own=self._own.note,
        )
        conditions.tell(f"{scenario.name}: preparing")
        self._prepared = self._stack.enter_context(scenario.prepared(self._one.plan.parameters, surroundings))

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except (DeferfsError, OSError) as problem:
            _give_up(self._one, self._one.able, problem_words(problem), self._conditions)


def _sweep(scratch: Path, conditions: Conditions) -> None:
    with uninterrupted():
        sweep(scratch, conditions.hierarchy, conditions.tell)


def _give_up(one: Collected, sides: Sequence[Side], problem: str, conditions: Conditions) -> None:
    """Skip `sides` in the rest of the run."""
    words = "; ".join(side.words for side in sides)
    line = f"{one.plan.scenario.name}: gave up on {words}: {problem}"
    conditions.tell(line)
    one.problems.append(line)
    one.missing.update((side.name, problem) for side in sides)


class _Passes:
    """The passes of one plan, in order. `end`: of `Plan.seconds`, on the monotonic clock."""

    def __init__(
        self, one: Collected, conditions: Conditions, prepared: Prepared, own: OwnProcesses, end: float = math.inf
    ) -> None:
        self._one, self._conditions, self._prepared, self._own, self._end = one, conditions, prepared, own, end
        self._chance = random.Random(conditions.seed)
        self._done = 0
        self._taken = 0.0
        self._may_be_left_out = 0

    def do_all(self) -> None:
        """The warm-up, then all pairs of each loop. Only one side is warmed up: each pass has a fresh copy of its image
        and its own mount, so that nothing but the programs and the harness stays warm, which all sides share."""
        scenario, plan = self._one.plan.scenario, self._one.plan
        pairs = plan.pairs or scenario.pairs
        if self._conditions.aa:
            pairs *= 2  # as each pass is one half of a pair
        warm_up = sides_of_aa(self._one.able) if getattr(scenario, "warm_up", True) else []
        loops = plan.loops or scenario.loops
        left = len(warm_up) + pairs * len(loops) * len(self._one.able)
        self._may_be_left_out = max(0, pairs - plan.pairs_min) * len(self._one.able)
        for side in warm_up:
            self._do(side, loops[0], 0, f"warming up: {side.words}", left)
            left -= 1
        for loop in loops:
            for pair in range(1, pairs + 1):
                sides = self._one.able
                if pair > plan.pairs_min and self._would_end_late(len(sides)):
                    self._leave_out(loop, pair - 1, pairs)
                    break
                self._chance.shuffle(sides)
                for side in sides:
                    kind = f"{loop} loop, " if len(loops) > 1 else ""
                    done = self._do(side, loop, pair, f"{kind}pair {pair} of {pairs}: {side.words}", left)
                    left -= 1
                    if done is not None:
                        self._one.passes.append(done)

    def _would_end_late(self, passes: int) -> bool:
        return self._conditions.clock() + passes * self._taken / max(1, self._done) > self._end

    def _leave_out(self, loop: Loop, done: int, pairs: int) -> None:
        """The time is up. It depends on nothing that is measured but how long passes take as a whole."""
        line = f"{self._one.plan.scenario.name}: {done} of {pairs} pairs of the {loop} loop fitted into the time"
        self._conditions.tell(line)
        self._one.remarks.append(line)

    def _do(self, side: Side, loop: Loop, pair: int, words: str, left: int) -> Pass | None:
        mean = self._taken / self._done if self._done else 0.0
        seconds = min(mean * left, max(self._end - self._conditions.clock(), mean * (left - self._may_be_left_out)))
        rest = f" (about {_duration(seconds)} left)" if mean else ""
        self._conditions.tell(f"{self._one.plan.scenario.name}: {words}{rest}")
        load = self._conditions.load(self._own)
        start = self._conditions.clock()
        try:
            done = self._prepared.perform(side, loop, pair)
        except (DeferfsError, OSError) as problem:
            _give_up(self._one, [side], problem_words(problem), self._conditions)
            return None
        foreign = load.fraction()
        self._taken += self._conditions.clock() - start
        self._done += 1
        return msgspec.structs.replace(done, pair=pair, loop=loop, side=side.name, foreign_cpu_fraction=foreign)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _result(one: Collected, conditions: Conditions) -> Result:
    scenario, parameters = one.plan.scenario, one.plan.parameters
    measures = list(scenario.measures)
    comparisons = [] if conditions.aa else compare_all(measures, one.sides, one.passes)
    sentences: list[str] = []
    if one.passes and not conditions.aa:
        sentences = [
            *scenario.sentences(one.passes, parameters),
            *latency_sentences(measures, one.sides, one.passes, comparisons),
        ]
    encoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(parameters))  # as a reader of the file has it
    return Result(
        scenario=scenario.name,
        mechanism=scenario.mechanism,
        parameters=encoded,
        disk=one.plan.disk,
        sides=one.sides,
        missing=one.missing,
        measures=measures,
        passes=one.passes,
        comparisons=comparisons,
        sentences=sentences,
        aa=_aa(one, conditions) if conditions.aa else [],
    )


def _aa(one: Collected, conditions: Conditions) -> list[Resampled]:
    quiet = [done for done in one.passes if not is_busy(done)]
    loops = {done.loop for done in quiet}
    return [
        resample(measure, quiet, conditions.seed) for measure in one.plan.scenario.measures if measure.loop in loops
    ]


def _refused(results: Sequence[Result], collected: Sequence[Collected]) -> bool:
    """Whether load by other programs prevented a verdict."""
    if any(comparison.verdict == "machine too busy" for result in results for comparison in result.comparisons):
        return True
    passes = [done for one in collected for done in one.passes]
    return sum(map(is_busy, passes)) > len(passes) / 2


def observations(one: Collected) -> list[str]:
    """Facts about the passes of a plan that a reader of the numbers must know, one line each."""
    name = one.plan.scenario.name
    notes = [f"{name}: {line}: not run" for line in _grouped_missing(one)]
    notes += one.problems
    notes += one.remarks
    busy = [done for done in one.passes if is_busy(done)]
    if busy:
        most = max(done.foreign_cpu_fraction for done in busy)
        notes.append(
            f"{name}: other programs took up to {most:.0%} of the processors (more than {FOREIGN_FRACTION:.0%}) in "
            f"{len(busy)} of {len(one.passes)} passes"
        )
    for side in one.sides:
        ours = [done for done in one.passes if done.side == side.name]
        notes += _of_side(name, side, ours)
    return notes


def _grouped_missing(one: Collected) -> list[str]:
    """The sides that cannot run, by reason."""
    given_up = set(one.problems)
    lines: dict[str, list[str]] = {}
    for side in one.sides:
        reason = one.missing.get(side.name)
        if reason and not any(problem.endswith(reason) for problem in given_up):
            lines.setdefault(reason, []).append(side.words)
    return [f"{reason}: {'; '.join(words)}" for reason, words in lines.items()]


def _of_side(name: str, side: Side, passes: Sequence[Pass]) -> list[str]:
    notes = []
    for outcome, words in (("oom-killed", "ended in an OOM kill"), ("unfinished", "did not finish in time")):
        count = sum(done.outcome == outcome for done in passes)
        if count:
            notes.append(f"{name}, {side.words}: {count} of {len(passes)} passes {words}")
    for series in dict.fromkeys(key for done in passes for key in done.series):
        found = [done.series[series] for done in passes if series in done.series and done.outcome == "finished"]
        due = sum(one.due for one in found)
        did = sum(one.latency.count for one in found)
        failed = sum(one.failed for one in found)
        if failed:
            notes.append(f"{name}, {side.words}: {failed} of {did + failed} operations failed: {series}")
        if did + failed < due * SATURATED_FRACTION:
            notes.append(f"{name}, {side.words}: kept only {(did + failed) / due:.0%} of the pace: {series}")
    notes += [f"{name}, {side.words}: not kept: {line}" for done in passes for line in done.broken]
    notes += [f"{name}, {side.words}: {note}" for note in dict.fromkeys(note for done in passes for note in done.notes)]
    return notes
