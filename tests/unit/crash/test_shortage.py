"""The actions of a mount that is short of memory do what they are there for, in the runs that are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from deferfs.crash.actions import act
from deferfs.crash.exploration import Task, actions_of, explore_actions, memory_is_short, shape_of
from deferfs.crash.model import ROOT
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import Shape, World
from deferfs.reclaim.debts import TimeDebts
from deferfs.store.journal import Journal
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.repayment import Repayment

FILE = 0o100644
RUNS = 24


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What happens to debts, and to blocks while a checkpoint is under way."""
    found: Counter[str] = Counter()

    def count(kind: type, name: str, what: Callable[..., str]) -> None:
        original = getattr(kind, name)

        def counted(self: Any, *args: Any) -> Any:
            result = original(self, *args)
            found[what(self, result, *args)] += 1
            return result

        monkeypatch.setattr(kind, name, counted)

    count(TimeDebts, "add", lambda debts, result, *debt: "handed over" if result else "refused")
    count(TimeDebts, "take", lambda debts, result, *inode: "taken over" if result else "")
    count(TimeDebts, "void", lambda debts, result, ino: "set while it may be owed")
    count(Repayment, "pay", lambda repayment, result, plan, first: "paid")
    count(Repayment, "go_along", lambda repayment, result, plan, first: "gone along" if len(plan.inodes) > 1 else "")
    count(Journal, "came_home", lambda journal, result, *blocks: "home with newer" if journal.running.images else "")
    return found


def test_drawn_runs_meet_all_of_it(counts: Counter[str]) -> None:
    short = (seed for seed in range(10 * RUNS) if memory_is_short(Task(seed)))
    for _ in range(RUNS):
        task = Task(next(short), evict="deferred")
        world, finding, _ = explore_actions(shape_of(task), task.seed, actions_of(task), 2, crashes=False)
        assert finding is None
        counts["updates alone"] += world.twin.volume.repayment.blocks_total
        counts["evicted"] += world.twin.volume.store.cache.evicted_total
    wanted = (
        "handed over", "refused", "taken over", "set while it may be owed", "paid", "gone along", "home with newer",
        "updates alone", "evicted",
    )  # fmt: skip
    assert {what: counts[what] for what in wanted if counts[what] < 4} == {}


@pytest.fixture
def world() -> World:
    """Ninety files that owe and have left memory, some with records in a part of the inode table that has left too."""
    world = World(Shape(free_blocks=400, atime="strict"))
    for number in range(90):
        ino = world.twin.create(ROOT, b"%d" % number, FILE)
        assert ino is not None
        world.twin.read(ino)
        world.twin.forget(ino)
    world.twin.sync()
    world.twin.driver.checkpoint()
    act(world, "hand_over_all", (0,))
    act(world, "hand_over_all", (0,))
    assert world.twin.volume.inodes.debts.count == 90
    return world


def test_a_payment_that_waits_for_its_block_meets_what_happens_meanwhile(world: World) -> None:
    states = len(world.twin.history.states)
    act(world, "pay_with_waits", (3, 3, 5, 5))
    assert len(world.twin.history.states) > states + 1, "the change of a debtor, and the payment"
    assert world.twin.driver.meanwhile == []
    world.twin.verify()


def test_a_number_is_used_again_with_another_generation(world: World) -> None:
    before = {ino: node.generation for ino, node in world.twin.model.nodes.items()}
    act(world, "remove_debtor", (3, 1, 1))
    after = {ino: node.generation for ino, node in world.twin.model.nodes.items()}
    assert before.keys() == after.keys()
    (changed,) = [ino for ino in before if before[ino] != after[ino]]
    assert not world.twin.volume.inodes.debts.owes(changed)


def test_only_what_is_at_home_may_be_evicted(world: World) -> None:
    """Not what the disk has otherwise than the cache."""
    twin = world.twin
    twin.evict()
    twin.setattr(ROOT, mode=0o700)
    twin.evict()
    cache = twin.volume.store.cache
    address = twin.driver.run(lambda plan: twin.volume.store.inodes.locate(plan, ROOT)[0])
    cache.let_go(address)
    cache.let_go(address)
    with pytest.raises(TwinError, match=f"block {address} is clean"):
        twin.evict()


def test_an_unmount_leaves_nothing_owed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cleanup, "owes", False)
    with pytest.raises(TwinError, match="never written"):
        act(world, "unmount", ())


def test_a_mount_has_what_the_one_before_has_told(world: World) -> None:
    owed = dict(world.twin.access_times.owed)
    act(world, "remount", ())
    assert {ino: world.twin.model.nodes[ino].times[0] for ino in owed} == owed
