"""Explorations: seeded runs of the model and the volume together, each followed by all its crashes.

A *task* fully determines one run, so that it has the same result wherever it runs. A *finding* is a failure with the
actions that lead to it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from deferfs.crash import ace
from deferfs.crash.actions import BACKGROUND, BLOCKING, LARGE, OPERATIONS, SHORTAGE, act_all
from deferfs.crash.explorer import CrashPoint, Failure, Limits, NoSuchCrash, Tally
from deferfs.crash.runs import random_actions, swarm, throw, weighted
from deferfs.crash.states import Subset
from deferfs.crash.world import SHORT_JOURNAL_BLOCKS, SMALL_JOURNAL_BLOCKS, Shape, World
from deferfs.errors import UsageError
from deferfs.limits import JOURNAL_BLOCKS_MIN

EVICT_MODES: Final = ("deferred", "inline")
RANDOM: Final = "random"
WARM_ACTIONS: Final = 250
"""Unexplored actions before some runs, so that their log wraps, their disk has been full, and they contain the results
of crashes.
"""
_SHORT_RUNS: Final = 0.35
"""Fraction of the runs in which memory is short."""
_BLOCKING_RUNS: Final = 0.3
"""Fraction of the runs in which requests wait while others run."""
_CROWDED_RUNS: Final = 0.4
"""Fraction of these with so many files that parts of the inode table are evicted. Small, because their trees are
expensive to judge."""
Action = tuple[str, tuple[int, int, int, int]]


class Task(msgspec.Struct, frozen=True):
    """One run: `workload` is "random", or the name of an enumeration in `ace`, of which it is number `seed`.

    A random run draws `length` words from `operations` and the background. The seed chooses an empty `evict` mode.
    """

    seed: int
    length: int = 120
    operations: tuple[str, ...] = ()
    evict: str = ""
    block_size: int = 1024
    workload: str = RANDOM
    torn: int = 24


class Finding(msgspec.Struct, frozen=True):
    """Why a run failed and how to repeat it. `place` is the crash point; None when volume and model differ without a
    crash.
    """

    reason: str
    shape: dict[str, Any]
    seed: int
    actions: list[Action]
    place: dict[str, Any] | None
    torn: int = 24
    workload: str = RANDOM


class Result(msgspec.Struct, frozen=True):
    """The outcome of one task."""

    task: Task
    tally: dict[str, Any]
    finding: Finding | None


def check_task(task: Task) -> None:
    """UsageError when the task cannot be run."""
    known = sorted({*OPERATIONS, *LARGE, *BACKGROUND, *SHORTAGE, *BLOCKING} - {"remount"})
    unknown = sorted(set(task.operations) - set(known))
    if unknown:
        raise UsageError(f"no such operation: {', '.join(unknown)}; there are {', '.join(known)}")
    if task.workload != RANDOM and task.workload not in ace.WORKLOADS:
        raise UsageError(f"no such workload: {task.workload}; there are {RANDOM}, {', '.join(ace.WORKLOADS)}")
    if task.evict and task.evict not in EVICT_MODES:
        raise UsageError(f"evict must be one of {', '.join(EVICT_MODES)}, not {task.evict!r}")


def memory_is_short(task: Task) -> bool:
    """Whether memory is short in this run: inodes that owe access times are evicted, and blocks as soon as possible."""
    if task.operations:
        return not SHORTAGE.keys().isdisjoint(task.operations)
    return random.Random(f"memory {task.seed}").random() < _SHORT_RUNS


def requests_wait(task: Task) -> bool:
    """Whether operations wait in this run while others run."""
    if task.operations:
        return not BLOCKING.keys().isdisjoint(task.operations)
    return random.Random(f"waits {task.seed}").random() < _BLOCKING_RUNS


def shape_of(task: Task) -> Shape:
    """A small filesystem, so that the log wraps and freed blocks are reused soon."""
    dice = random.Random(f"shape {task.seed}")
    short = memory_is_short(task)
    if task.workload != RANDOM:
        return Shape(task.block_size, 150, SMALL_JOURNAL_BLOCKS, task.evict or EVICT_MODES[task.seed % 2])
    small = task.block_size == 1024
    return Shape(
        task.block_size,
        dice.choice((150, 150, 1200)) if small else 150,
        dice.choice((SHORT_JOURNAL_BLOCKS if short else SMALL_JOURNAL_BLOCKS, JOURNAL_BLOCKS_MIN)),
        task.evict or EVICT_MODES[task.seed % 2],
        dice.choice((64 << 20, 160 << 10, 32 << 10)) if small else 64 << 20,
        dice.random() < 0.25,
        "strict" if short and dice.random() < 0.7 else "relative",
    )


def actions_of(task: Task) -> list[Action]:
    """The schedule: operations, steps of commits, checkpoints and inactivations, in order."""
    if task.workload != RANDOM:
        return ace.WORKLOADS[task.workload].actions(task.seed)
    dice = random.Random(f"actions {task.seed}")
    short = memory_is_short(task)
    draw = partial(
        random_actions,
        dice,
        checkpoints=dice.random() < 0.7,
        background_percent=dice.choice((5, 15, 25, 40)),
        words=task.operations,
        large=True,
        short=short,
        blocking_too=requests_wait(task),
        weigh=partial(swarm, dice) if not task.operations and dice.random() < 0.5 else weighted,
    )
    warm: list[Action] = []
    if dice.random() < 0.5:
        crashes = 0 if task.operations else dice.choice((0, 1, 2))
        for word, numbers in draw(WARM_ACTIONS, crashes_percent=crashes):
            warm.append(("power_failure" if word == "crash" else word, numbers))
        warm.append(("begin", (0, 0, 0, 0)))
    # only one log is explored: actions that continue from another image must come before
    explored = [action for action in draw(task.length) if action[0] != "remount"]
    if not task.operations:
        explored = _with_an_end(explored, dice)
        if short and dice.random() >= _CROWDED_RUNS:
            warm, explored = _without_crowds(warm), _without_crowds(explored)
    return [*warm, *explored]


def _without_crowds(actions: list[Action]) -> list[Action]:
    return [action for action in actions if action[0] != "crowd"]


def _with_an_end(actions: list[Action], dice: random.Random) -> list[Action]:
    """Of four runs, one ends with the unmount, and one with a failing disk."""
    turn = dice.randrange(4)
    if turn == 0:
        return [*actions, ("unmount", throw(dice))]
    if turn == 1:
        actions.insert(dice.randrange(len(actions) + 1), ("fail", throw(dice)))
    return actions


def run_task(task: Task) -> Result:
    """Run the task and explore its crashes, up to the first failure."""
    _, finding, tally = explore_actions(shape_of(task), task.seed, actions_of(task), task.torn, task.workload)
    return Result(task, tally_to_dict(tally), finding)


def explore_actions(
    shape: Shape, seed: int, actions: Sequence[Action], torn: int, workload: str = RANDOM, *, crashes: bool = True
) -> tuple[World, Finding | None, Tally]:
    """Perform the actions in a new world, then explore all crashes unless `crashes` is False."""
    world = World(shape, seed)
    tally = Tally()
    crash: CrashPoint | None = None
    try:
        act_all(world, actions)
        if not world.twin.below.failures and "unmount" not in {word for word, _ in actions}:
            world.twin.verify()
        if not crashes:
            return world, None, tally
        explorer = world.explorer(seed=seed, limits=Limits(torn=torn))
        tally = explorer.tally
        explorer.explore(world.first)
        return world, None, tally
    except Failure as failure:
        crash, reason = failure.crash, failure.reason
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        world.twin.driver.drop_standing()
    found = Finding(
        reason,
        msgspec.to_builtins(shape),
        seed,
        list(actions),
        None if crash is None else msgspec.to_builtins(crash),
        torn,
        workload,
    )
    return world, found, tally


def judge_finding(finding: Finding) -> tuple[World, str | None]:
    """Repeat a finding; why it fails, or None when it no longer does."""
    shape = msgspec.convert(finding.shape, Shape)
    crash = crash_of(finding)
    if crash is None:
        world, found, _ = explore_actions(shape, finding.seed, finding.actions, finding.torn, crashes=False)
        return world, None if found is None else found.reason
    world = World(shape, finding.seed)
    try:
        act_all(world, finding.actions)
        world.explorer(seed=finding.seed).judge_crash(crash)
    except Failure as failure:
        return world, failure.reason
    except NoSuchCrash:
        return world, None
    except Exception as error:
        return world, f"{type(error).__name__}: {error}"
    return world, None


def crash_of(finding: Finding) -> CrashPoint | None:
    """The crash of a finding."""
    return None if finding.place is None else _crash_point(finding.place)


def _crash_point(found: dict[str, Any]) -> CrashPoint:
    within = found["within"]
    return CrashPoint(
        found["epoch"], msgspec.convert(found["choice"], Subset), None if within is None else _crash_point(within)
    )


def tally_to_dict(tally: Tally) -> dict[str, Any]:
    """For JSON, and for other processes."""
    found = msgspec.to_builtins(tally)
    assert isinstance(found, dict)
    return found


def tally_from_dict(found: dict[str, Any]) -> Tally:
    """The inverse of `tally_to_dict`."""
    return msgspec.convert(found, Tally)
