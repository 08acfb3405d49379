"""The runs that are drawn, and runs that a failing disk ends."""

from __future__ import annotations

import pytest

from deferfs.crash.actions import act, act_all
from deferfs.crash.exploration import Action, Finding, Task, actions_of, explore_actions, judge_finding
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.world import Shape, World
from deferfs.device import Fault, Request
from deferfs.errors import CorruptionError, FsError
from deferfs.volume import files

FILE = 0o100644
FEW = Limits(torn=2, states_per_epoch=20, within=4)


def drawn(seed: int) -> tuple[list[Action], list[Action]]:
    """What a task does before its explored part, and in it."""
    actions = actions_of(Task(seed, 60))
    words = [word for word, _ in actions]
    begin = words.index("begin") if "begin" in words else 0
    return actions[:begin], actions[begin:]


def test_runs_differ_in_kind() -> None:
    """Crashes and remounts before the explored part, an unmount or a disk that fails in it, words left out."""
    warm, explored = zip(*map(drawn, range(60)), strict=True)
    before = [{word for word, _ in actions} for actions in warm]
    within = [{word for word, _ in actions} for actions in explored]
    assert any("power_failure" in words for words in before) and any("remount" in words for words in before)
    assert not any({"power_failure", "remount"} & words for words in within)
    assert {actions[-1][0] == "unmount" for actions in explored} == {True, False}
    assert {"fail" in words for words in within} == {True, False}
    assert len({frozenset(words) for words in within}) == len(within)


def test_given_operations_are_all_there_is() -> None:
    for seed in range(12):
        assert {word for word, _ in actions_of(Task(seed, 40, ("create", "sync")))} <= {"create", "sync", "begin"}


def failing(kind: Request) -> World:
    """A file is committed and on its way home, another is being committed, and the next request of a kind fails."""
    world = World(Shape(free_blocks=150))
    twin = world.twin
    twin.create(ROOT, b"old", FILE)
    twin.sync()
    twin.create(ROOT, b"new", FILE)
    twin.driver.begin_checkpoint()
    twin.driver.begin_commit()
    twin.below.add(Fault(frozenset({kind})))
    return world


@pytest.mark.parametrize("kind", [Request.WRITE, Request.FLUSH])
@pytest.mark.parametrize("first", ["commit_step", "checkpoint_step"])
def test_a_disk_that_fails_ends_the_run(kind: Request, first: str) -> None:
    """What is in flight comes to its end, and nothing has become durable."""
    world = failing(kind)
    floor = world.twin.history.floors[-1]
    act_all(world, [(first, (5, 0, 0, 0))] * 4 + [("create", (0, 1, 0, 0))] * 2)
    driver = world.twin.driver
    assert driver.committing is None and driver.checkpointing is None
    assert world.twin.history.floors[-1] == floor
    assert len(world.twin.model.nodes) == 3, "nothing is done after it"
    assert world.explore(limits=FEW).states


def test_a_run_is_ended_only_by_an_error_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Shape())
    monkeypatch.setattr(world.twin.driver, "begin_commit", _damaged)
    with pytest.raises(CorruptionError):
        act_all(world, [("commit_step", (0, 0, 0, 0))])
    world = failing(Request.FLUSH)
    with pytest.raises(FsError):
        act(world, "sync", (0, 0, 0, 0))
    monkeypatch.setattr(world.twin.driver, "checkpoint", _damaged)
    with pytest.raises(CorruptionError):
        act_all(world, [("checkpoint", (0, 0, 0, 0))])


def _damaged() -> None:
    raise CorruptionError("damaged")


def test_volume_and_model_are_compared_before_anything_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is neither committed nor read again."""
    actions: list[Action] = [("create", (0, 0, 0, 0)), ("write", (0, 2, 0, 7))]
    assert explore_actions(Shape(free_blocks=150), 1, actions, 4)[1] is None
    monkeypatch.setattr(files._Writer, "_fresh", lambda self, mapping: None)
    _, finding, tally = explore_actions(Shape(free_blocks=150), 1, [*actions, ("write", (0, 6, 0, 7))], 4)
    assert finding is not None and finding.place is None
    assert "volume and model differ" in finding.reason
    assert not tally.states


def test_an_unmount_is_explored() -> None:
    """Up to the image that is clean."""
    actions: list[Action] = [("create", (0, 0, 0, 0)), ("unmount", (0, 0, 0, 0))]
    world, finding, tally = explore_actions(Shape(free_blocks=150), 1, actions, 4)
    assert finding is None
    assert "commit" in " ".join(tally.coverage)
    assert world.twin.volume.store.superblock.clean


def test_a_finding_whose_crash_is_not_there_any_more_does_not_fail() -> None:
    place = {"epoch": 10_000, "choice": {"kept": 0}, "within": None}
    finding = Finding("it was", {"free_blocks": 150}, 1, [("create", (0, 0, 0, 0))], place)
    assert judge_finding(finding)[1] is None
