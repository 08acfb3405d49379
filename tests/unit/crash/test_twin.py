"""What the twin asks of fsync."""

from __future__ import annotations

import pytest

from deferfs.crash.ace import OPERATIONS, PERSISTENCE, perform
from deferfs.crash.model import ROOT, names_of
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import Shape, World
from deferfs.store.journal import Journal

FILE = 0o100644
DELETING = ("_unlink", "_unlink_open", "_remove_and_forget", "_rmdir")
"""After these there is nothing left to call fsync on."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """With a synced file, and a volume that takes every file for durable from now on."""
    world = World(Shape())
    assert world.twin.create(ROOT, b"a", FILE) is not None
    world.twin.sync()
    monkeypatch.setattr(Journal, "uncommitted", lambda journal, ino, *, data_only: 0)
    return world


def the_file(world: World) -> int:
    (ino,) = [ino for ino, node in world.twin.model.nodes.items() if node.is_file]
    return ino


def test_fdatasync_makes_names_durable(world: World) -> None:
    ino = the_file(world)
    world.twin.rename(ROOT, b"a", ROOT, b"b")
    assert names_of(world.twin.model.nodes, ino) == {(ROOT, b"b")}
    with pytest.raises(TwinError, match="names are not durable"):
        world.twin.fsync(ino, data_only=True)


def test_fdatasync_makes_all_attributes_but_times_durable(world: World) -> None:
    ino = the_file(world)
    world.twin.set_times(ino, 5, 6)
    world.twin.fsync(ino, data_only=True)
    world.twin.setattr(ino, mode=0o600)
    with pytest.raises(TwinError, match="mode is"):
        world.twin.fsync(ino, data_only=True)


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=lambda number: OPERATIONS[number][0].__name__)
def test_a_short_sequence_makes_durable_what_it_moved(number: int) -> None:
    """fsync after a rename is one of the file or directory where it is now."""
    world = World(Shape())
    fsync = next(index for index, step in enumerate(PERSISTENCE) if step.__name__ == "_fsync")
    perform(world, number, fsync)
    durable = world.twin.history.floors[-1][1] == world.twin.history.last
    assert durable is (OPERATIONS[number][0].__name__ not in DELETING)
