"""What the explorer must not pass over."""

from __future__ import annotations

import pytest

from deferfs.crash.epochs import Epoch, epochs
from deferfs.crash.explorer import CrashPoint, Explorer, Failure, Limits, NoSuchCrash
from deferfs.crash.model import ROOT
from deferfs.crash.pages import PageDevice, patched
from deferfs.crash.recoveries import run_recovery
from deferfs.crash.states import CrashStates, Subset
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World
from deferfs.device import FlushRecord, Record, WriteRecord
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS

FILE = 0o100644


def a_world() -> World:
    world = World(Shape(free_blocks=150, journal_blocks=SMALL_JOURNAL_BLOCKS))
    assert world.twin.create(ROOT, b"synced", FILE) is not None
    world.twin.sync()
    return world


def test_an_image_that_is_met_again_must_hold_what_was_promised_since() -> None:
    """Something is said to be durable, and nothing was written for it: the disk holds an image that was fine before."""
    world = a_world()
    assert world.explore().states > 0
    assert world.twin.create(ROOT, b"not synced", FILE) is not None
    world.twin.history.durable(world.twin.position, world.twin.history.last)
    with pytest.raises(Failure, match="allowed are"):
        world.explore()


def test_an_image_that_is_met_again_in_a_recovery_must_lead_to_the_same() -> None:
    """An image that a recovery leaves half-way is not passed over because it was seen elsewhere, with another tree."""
    world = a_world()
    explorer = world.explorer(seed=1, limits=Limits(torn=0))
    explorer.explore()
    again = world.explorer(seed=1, limits=Limits(torn=0))
    again._seen = {image: judged._replace(state=0) for image, judged in explorer._seen.items()}
    last = list(epochs(world.twin.device.records, again.page_bytes))[-1]
    state = again.state_at(CrashPoint(last.number, Subset(-1)))
    outcome, recovery = again._judge(state, again.names.of(state.patch)[1])
    assert recovery.images and outcome.state > 0
    again._crash_within(state, recovery, outcome)
    assert any(again._seen[image].state == outcome.state for image in explorer._seen), "none was judged again"


def recovering(world: World) -> tuple[Explorer, list[Epoch]]:
    """The epochs of the mount that follows a crash at the end of the world."""
    explorer = world.explorer(seed=1)
    last = list(epochs(world.twin.device.records, explorer.page_bytes))[-1]
    state = explorer.state_at(CrashPoint(last.number, Subset(-1)))
    recovery = run_recovery(PageDevice(explorer.base, state.patch))
    return explorer, [inner for inner, _, _ in explorer._inner_epochs(state, recovery)]


def test_the_superblock_of_the_mount_belongs_to_a_recovery() -> None:
    """Were the recovery not flushed at its end, both copies would be on their way at once."""
    _, found = recovering(a_world())
    offsets = [[write.offset for write in epoch.writes] for epoch in found if epoch.writes]
    assert len(offsets) == 3
    assert [offset for (offset,) in offsets[1:]] in ([*SUPERBLOCK_OFFSETS], [*reversed(SUPERBLOCK_OFFSETS)])


def test_states_inside_a_recovery_are_of_all_its_epochs() -> None:
    """However many writes the first one has."""
    world = World(Shape(free_blocks=150, journal_blocks=SMALL_JOURNAL_BLOCKS))
    for number in range(12):
        directory = world.twin.create(ROOT, b"%d" % number, 0o040755)
        assert directory is not None
        world.twin.setxattr(directory, b"user.0", bytes(1500))
        world.twin.write(world.twin.create(directory, b"file", FILE) or 0, 0, b"x" * 3000)
    world.twin.sync()
    explorer, found = recovering(world)
    assert len(found[0].writes) > 5
    tried: dict[int, set[int]] = {}
    for inner in found:
        for choice in explorer._choices(inner, explorer.dice, torn=6, at_most=24):
            for index in range(len(inner.writes)):
                if choice(index, inner.lengths[index]):
                    tried.setdefault(inner.number, set()).add(index)
    assert {number: len(indices) for number, indices in tried.items()} == {
        inner.number: len(inner.writes) for inner in found if inner.writes
    }


def test_a_run_that_does_other_things_does_not_come_to_the_crash() -> None:
    with pytest.raises(NoSuchCrash):
        a_world().explorer(seed=1).judge_crash(CrashPoint(10_000, Subset(0)))


def test_pages_of_the_mount_are_those_of_the_plain_states() -> None:
    """What the inner epochs add up to is what a mount leaves."""
    world = a_world()
    explorer = world.explorer(seed=1)
    last = list(epochs(world.twin.device.records, explorer.page_bytes))[-1]
    state = explorer.state_at(CrashPoint(last.number, Subset(-1)))
    recovery = run_recovery(PageDevice(explorer.base, state.patch))
    pages = patched(explorer.base, state.patch)
    records: list[Record] = []
    for inner, _, before in explorer._inner_epochs(state, recovery):
        complete = inner.state(before, Subset(-1))
        assert complete is not None
        pages = patched(before, complete.patch)
        records += [WriteRecord(write.offset, write.data) for write in inner.writes] + [FlushRecord()]
    start = b"".join(patched(explorer.base, state.patch))
    assert b"".join(pages) == CrashStates(start, records).image(len(records), Subset(0))
